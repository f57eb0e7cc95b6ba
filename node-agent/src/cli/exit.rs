//! Exit codes, and errors as a person wants to read them.

use std::process::ExitCode;

use super::output;

/// The exit codes of every command (a wrong usage ends in clap, with 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// It failed.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// It answered, and the answer is that something is not well.
    Unhealthy = 3,
    /// No agent answers.
    Unreachable = 4,
}

/// An error with its exit code: what happened, why, and what to do next.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) what: String,
    pub(super) next: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            next: None,
        }
    }

    pub(super) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failure, format!("{error:#}"))
    }
}

/// Says what went wrong on standard error and gives the exit code.
pub(super) fn report(done: Result<(), Failure>) -> ExitCode {
    let Err(failure) = done else {
        return ExitCode::SUCCESS;
    };
    if !failure.what.is_empty() {
        output::talk(&format!("error: {}", failure.what));
    }
    if let Some(next) = failure.next {
        output::talk(&format!("  next: {next}"));
    }
    ExitCode::from(failure.exit as u8)
}
