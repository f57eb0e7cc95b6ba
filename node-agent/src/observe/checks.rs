//! Named health checks that the stages set and `/readyz` and `/livez` show.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A list of named checks; all must pass.
#[derive(Debug, Clone, Default)]
pub struct Checks(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    name: &'static str,
    /// Why not, or what there is to say although it passes.
    result: Result<String, String>,
}

/// What one check says at this moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckResult {
    /// Name of the check.
    pub name: String,
    /// Whether it passed.
    pub ok: bool,
    /// Why not; when it passed, what there is to say nevertheless, or nothing.
    pub detail: String,
}

/// The handle of whoever knows how one check stands.
#[derive(Debug, Clone)]
pub struct Check {
    checks: Checks,
    index: usize,
}

impl Checks {
    /// Adds a check, which fails with `not yet` until set. Register all checks before the server starts, or it will
    /// answer ready too early.
    pub fn register(&self, name: &'static str) -> Check {
        let mut entries = self.lock();
        entries.push(Entry {
            name,
            result: Err("not yet".into()),
        });
        Check {
            checks: self.clone(),
            index: entries.len() - 1,
        }
    }

    /// Every check, in the order of registration.
    pub fn results(&self) -> Vec<CheckResult> {
        let result = |entry: &Entry| CheckResult {
            name: entry.name.to_owned(),
            ok: entry.result.is_ok(),
            detail: entry.result.clone().unwrap_or_else(|why| why),
        };
        self.lock().iter().map(result).collect()
    }

    /// Whether all pass.
    pub fn passed(&self) -> bool {
        self.lock().iter().all(|entry| entry.result.is_ok())
    }

    /// One line per check and a summary, as kube-apiserver writes it for `?verbose`.
    pub(super) fn verbose(&self, endpoint: &str) -> String {
        let mut text = String::new();
        for entry in self.lock().iter() {
            let _ = match &entry.result {
                Ok(remark) if remark.is_empty() => writeln!(text, "[+]{} ok", entry.name),
                Ok(remark) => writeln!(text, "[+]{} ok: {}", entry.name, one_line(remark)),
                Err(why) => writeln!(text, "[-]{} failed: {}", entry.name, one_line(why)),
            };
        }
        let passed = if self.passed() { "passed" } else { "failed" };
        let _ = writeln!(text, "{endpoint} check {passed}");
        text
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Check {
    /// The check passes.
    pub fn ok(&self) {
        self.ok_but("");
    }

    /// The check passes, and an operator should know something.
    pub fn ok_but(&self, remark: impl Into<String>) {
        self.checks.lock()[self.index].result = Ok(remark.into());
    }

    /// The check fails, for a reason an operator can act on.
    pub fn failed(&self, why: impl Into<String>) {
        self.checks.lock()[self.index].result = Err(why.into());
    }
}

/// A check's reason must not look like another check's line.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_fails_until_it_is_set_and_the_summary_follows() {
        let checks = Checks::default();
        assert!(checks.passed(), "no check is no objection");
        let kernel = checks.register("kernel");
        let config = checks.register("config");
        assert_eq!(
            checks.verbose("readyz"),
            "[-]kernel failed: not yet\n[-]config failed: not yet\nreadyz check failed\n"
        );
        kernel.ok();
        config.failed("a.yaml: line 3\n[+]forged ok");
        assert_eq!(
            checks.verbose("readyz"),
            "[+]kernel ok\n[-]config failed: a.yaml: line 3 [+]forged ok\nreadyz check failed\n"
        );
        assert!(!checks.passed());
        config.ok();
        assert_eq!(
            checks.verbose("readyz"),
            "[+]kernel ok\n[+]config ok\nreadyz check passed\n"
        );
        config.ok_but("of yesterday");
        assert_eq!(
            checks.verbose("readyz"),
            "[+]kernel ok\n[+]config ok: of yesterday\nreadyz check passed\n"
        );
        assert_eq!(checks.results()[1].detail, "of yesterday");
        config.ok();
        kernel.failed("lost");
        assert_eq!(
            checks.results()[0],
            CheckResult {
                name: "kernel".into(),
                ok: false,
                detail: "lost".into()
            }
        );
    }
}
