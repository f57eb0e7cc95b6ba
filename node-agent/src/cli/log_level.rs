//! `tramline log-level`.

use std::path::Path;

use clap::Args;
use hyper::Method;

use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};

#[derive(Debug, Args)]
pub(super) struct LogLevelArgs {
    /// error, warn, info, debug, trace, off, MODULE=LEVEL,..., or reset for the level at start; none: show it
    #[arg(value_name = "LEVEL")]
    level: Option<String>,

    #[command(flatten)]
    output: OutputArgs,
}

/// The answer.
#[derive(Debug, serde::Serialize)]
pub(super) struct LogLevel {
    /// The level in use.
    pub(super) level: String,
}

pub(super) fn run(socket: &Path, args: &LogLevelArgs) -> Result<(), Failure> {
    let level = match &args.level {
        None => client::text(socket, Method::GET, "/logging")?,
        Some(level) => {
            // It becomes part of a URI; no level has other characters.
            let plain = |c: char| c.is_ascii_alphanumeric() || "=:,_-".contains(c);
            if level.is_empty() || !level.chars().all(plain) {
                let what = format!(
                    "log level {level:?} is none; use error, warn, info, debug, trace or MODULE=LEVEL,..."
                );
                return Err(Failure::new(Exit::Usage, what));
            }
            client::text(socket, Method::POST, &format!("/logging?level={level}"))?
        }
    };
    let answer = LogLevel { level };
    output::show(args.output.output, &answer, |_| format!("{}\n", answer.level))
}
