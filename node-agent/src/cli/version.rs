//! `tramline version`.

use clap::Args;

use super::exit::Failure;
use super::{Output, OutputArgs, output};
use crate::observe::{COMMIT, VERSION};

#[derive(Debug, Args)]
pub(super) struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &VersionArgs) -> Result<(), Failure> {
    match args.output.output {
        Output::Table => output::data(&format!("tramline {VERSION} ({COMMIT})\n")),
        Output::Json => output::json(&serde_json::json!({ "version": VERSION, "commit": COMMIT })),
    }
}
