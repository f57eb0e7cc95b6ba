//! `cargo xtask fuzz`: builds the fuzzer in release and hands over to it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::artifacts::Artifacts;
use crate::report;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// [TARGET]... [--seconds N] [--seed N] [--keep DIR] [--input FILE], as tramline-fuzz takes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::read()?;
    report::step("building the fuzzer in release (some minutes the first time)");
    let binaries = Artifacts::release_binaries(&workspace, &["tramline-fuzz"])?;
    let fuzz = binaries
        .get("tramline-fuzz")
        .context("this workspace has no tramline-fuzz")?;
    let error = Command::new(fuzz).args(&args.arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", fuzz.display()))
}
