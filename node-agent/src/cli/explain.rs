//! `tramline explain`.

mod text;

use std::path::Path;

use clap::Args;

use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use crate::observe::admin::api::{CaptureReport, ExplainReport};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Who dials: NAMESPACE/POD, or an IP address (outside the mesh where it is no pod's)
    #[arg(long, value_name = "NAMESPACE/POD|IP", value_parser = plain)]
    from: String,

    /// What is dialled: a Service (NAME, NAME.NAMESPACE, full name), NAMESPACE/POD or an IP address, with its port;
    /// without it: whether the pod is captured at all
    #[arg(long, value_name = "HOST:PORT", value_parser = plain)]
    to: Option<String>,

    #[command(flatten)]
    output: OutputArgs,
}

/// It becomes part of a URI; no name of a Kubernetes object and no address has other characters.
fn plain(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._/:[]".contains(c);
    if !text.is_empty() && text.len() <= 1024 && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a name or an address is made of a-z, 0-9, `-`, `.`, `_`, `/`, `:`, `[` and `]`".to_owned())
    }
}

pub(super) fn run(socket: &Path, args: &ExplainArgs) -> Result<(), Failure> {
    let good = match &args.to {
        Some(to) => {
            let target = format!("/explain?from={}&to={to}", args.from);
            let report: ExplainReport = client::get(socket, &target)?;
            output::show(args.output.output, &report, |view| {
                text::connection(&report, &args.from, to, view)
            })?;
            report.explanation.conclusion.verdict == "allow"
        }
        None => {
            let report: CaptureReport = client::get(socket, &format!("/capture?from={}", args.from))?;
            output::show(args.output.output, &report, |view| text::capture(&report, view))?;
            report.capture.captured
        }
    };
    if good {
        Ok(())
    } else {
        // The answer itself has said why.
        Err(Failure::new(Exit::Unhealthy, ""))
    }
}

#[cfg(test)]
mod tests;
