//! Joins a cgroup, then becomes another program: the process id stays, and no instruction of that program runs outside.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// The directory of the cgroup.
    #[arg(long)]
    cgroup: PathBuf,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

impl Exec {
    pub(crate) fn run(self) -> Result<()> {
        let file = self.cgroup.join("cgroup.procs");
        // 0 is the writing process itself.
        fs::write(&file, "0").with_context(|| format!("join {}", file.display()))?;
        let (program, args) = self.program.split_first().context("no program given")?;
        let error = Command::new(program).args(args).exec();
        Err(error).with_context(|| format!("become {program}"))
    }
}
