//! Exit codes, and errors as a person wants to read them.

use std::io;
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
    /// It answered, and the answer is no: something is not well, or a connection would be refused.
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
        let failure = Self::new(Exit::Failure, with_causes(&error));
        let denied = error
            .chain()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
        if denied {
            failure.next("the agent needs root; `tramline doctor` tells what else this machine lacks")
        } else {
            failure
        }
    }
}

/// The error and its causes in one line; a cause that the error's own text has already said is not said again.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::Failure;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door: {0}")]
    struct Door(#[source] std::io::Error);

    #[test]
    fn a_cause_is_said_once() {
        let locked = || std::io::Error::other("it is locked");
        let said = Failure::from(anyhow::Error::new(Door(locked())));
        assert_eq!(said.what, "cannot open the door: it is locked");
        let said = Failure::from(anyhow::Error::new(locked()).context("going home"));
        assert_eq!(said.what, "going home: it is locked");
        assert_eq!(said.next, None);
    }

    #[test]
    fn who_may_not_is_told_who_may() {
        let denied = anyhow::Error::new(Door(std::io::ErrorKind::PermissionDenied.into()));
        assert!(
            Failure::from(denied)
                .next
                .is_some_and(|next| next.contains("root"))
        );
    }
}
