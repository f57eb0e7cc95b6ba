//! Joins a cgroup, then becomes another program: the process id stays, and no instruction of that program runs outside.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::SigSet;

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
        // The starter may wait for signals on a thread of its own and block them everywhere else; that is inherited.
        SigSet::all().thread_unblock().context("unblock signals")?;
        let (program, args) = self.program.split_first().context("no program given")?;
        let error = Command::new(program).args(args).exec();
        Err(error).with_context(|| format!("become {program}"))
    }
}
