//! TAP on the console: xtask reads it there.
#![expect(clippy::print_stdout, reason = "the console is this program's only way out")]

use anyhow::Result;

/// Counts the checks and prints one line for each.
#[derive(Debug, Default)]
pub(crate) struct Report {
    checks: u32,
}

impl Report {
    /// `ok` or `not ok` with the reason; true if it was ok.
    pub(crate) fn check(&mut self, name: &str, outcome: Result<()>) -> bool {
        self.checks += 1;
        match outcome {
            Ok(()) => println!("ok {} - {name}", self.checks),
            Err(ref error) => {
                println!("not ok {} - {name}", self.checks);
                for line in format!("{error:?}").lines() {
                    comment(line);
                }
            }
        }
        outcome.is_ok()
    }

    /// The plan comes last: without it xtask knows that the machine stopped half-way.
    pub(crate) fn finish(&self) {
        println!("1..{}", self.checks);
    }
}

/// A line that is no result.
pub(crate) fn comment(line: &str) {
    println!("# {line}");
}
