//! How many tests passed and failed, read from what the test runners print.

use std::ops::AddAssign;

/// Tests, or checks that stand for one test each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// One check.
    pub(crate) fn one(passed: bool) -> Self {
        Self {
            passed: u64::from(passed),
            failed: u64::from(!passed),
            skipped: 0,
        }
    }

    /// What this line of a runner's output says, if it is one that counts: cargo test's `test result:` (one for each
    /// test binary) or nextest's `Summary`.
    pub(crate) fn in_line(line: &str) -> Option<Self> {
        let line = line.trim();
        let counted = if line.starts_with("test result:") || line.starts_with("Summary [") {
            line.split([';', ',', '.', ':'])
        } else {
            return None;
        };
        let mut counts = Self::default();
        for part in counted {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (
                words.next().and_then(|word| word.parse::<u64>().ok()),
                words.next(),
            ) else {
                continue;
            };
            match what {
                "passed" => counts.passed += number,
                "failed" | "timed" => counts.failed += number,
                "skipped" | "ignored" => counts.skipped += number,
                _ => {}
            }
        }
        Some(counts)
    }

    /// A runner that failed without a failed test (a build error, a crash) counts as one failure.
    pub(crate) fn with_exit(mut self, success: bool) -> Self {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
        self
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_test_lines_count() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(
            Counts::in_line(line),
            Some(Counts {
                passed: 12,
                failed: 3,
                skipped: 1
            })
        );
    }

    #[test]
    fn nextest_lines_count() {
        let line = "     Summary [   0.004s] 30 tests run: 27 passed (1 slow, 1 flaky), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(
            Counts::in_line(line),
            Some(Counts {
                passed: 27,
                failed: 3,
                skipped: 4
            })
        );
    }

    #[test]
    fn other_lines_do_not() {
        assert_eq!(Counts::in_line("running 3 tests"), None);
        assert_eq!(Counts::in_line("12 passed, 0 failed"), None);
    }

    #[test]
    fn a_runner_that_fails_counts_as_a_failure() {
        assert_eq!(Counts::default().with_exit(false).failed, 1);
        assert_eq!(
            Counts {
                passed: 1,
                failed: 2,
                skipped: 0
            }
            .with_exit(false)
            .failed,
            2
        );
        assert_eq!(
            Counts {
                passed: 1,
                failed: 0,
                skipped: 0
            }
            .with_exit(true)
            .failed,
            0
        );
    }
}
