//! `cargo xtask demo`: sets up what is missing, builds, and hands over to the demo program.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::artifacts::Artifacts;
use crate::process;
use crate::report;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

const NEEDS_ROOT: &str = "the demo makes network namespaces and loads eBPF programs: it needs root";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    setup: setup::Options,
    /// Write the facts to FILE: {"facts": [{name, ok, evidence}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave everything running at the end, and print commands to play with
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier demo left, and do nothing else
    #[arg(long, conflicts_with_all = ["json", "keep"])]
    clean: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    // Listing what is missing needs no root; installing it and all the rest does.
    if !args.setup.no_install && !process::is_root() {
        bail!("{NEEDS_ROOT}");
    }
    if !args.clean {
        setup::ensure(&[Purpose::Ebpf, Purpose::Network], args.setup)?;
    }
    if !process::is_root() {
        bail!("{NEEDS_ROOT}");
    }
    let workspace = Workspace::read()?;
    if !args.clean {
        crate::build_ebpf::build(&workspace, crate::build_ebpf::Object::Debug, false)?;
    }
    report::step("building the agent and the demo (some minutes the first time)");
    let binaries = Artifacts::binaries(&workspace)?;
    let demo = binaries
        .get("tramline-demo")
        .context("this workspace has no tramline-demo")?;
    // In place of this process: Ctrl-C must wait for the demo's cleaning up.
    let error = Command::new(demo).args(arguments(args)?).exec();
    Err(error).with_context(|| format!("cannot start {}", demo.display()))
}

fn arguments(args: &Args) -> Result<Vec<PathBuf>> {
    let mut arguments = Vec::new();
    if let Some(file) = &args.json {
        arguments.push(PathBuf::from("--json"));
        arguments.push(std::path::absolute(file).context("--json")?);
    }
    if args.keep {
        arguments.push(PathBuf::from("--keep"));
    }
    if args.clean {
        arguments.push(PathBuf::from("--clean"));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_where_the_user_said_it_from() {
        let args = Args {
            setup: setup::Options::default(),
            json: Some(PathBuf::from("f.json")),
            keep: true,
            clean: false,
        };
        let arguments = arguments(&args).unwrap();
        assert_eq!(arguments[0], PathBuf::from("--json"));
        assert!(arguments[1].is_absolute() && arguments[1].ends_with("f.json"));
        assert_eq!(arguments[2], PathBuf::from("--keep"));
    }
}
