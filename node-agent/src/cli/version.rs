//! `tramline version`.

use clap::Args;

use super::exit::Failure;
use super::output::{self, OutputArgs};
use crate::observe::{COMMIT, VERSION};

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// The answer.
#[derive(Debug, serde::Serialize)]
pub(super) struct Version {
    version: &'static str,
    commit: &'static str,
}

impl Version {
    pub(super) fn own() -> Self {
        Self {
            version: VERSION,
            commit: COMMIT,
        }
    }
}

pub(super) fn run(args: &VersionArgs) -> Result<(), Failure> {
    output::show(args.output.output, &Version::own(), |_| {
        format!("tramline {VERSION} ({COMMIT})\n")
    })
}
