//! The facts as they were found.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::screen;

/// One promise and what was seen of it.
#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    ok: bool,
    evidence: String,
}

/// All of them, in order.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    facts: Vec<Fact>,
}

impl Report {
    /// Runs one fact and shows it. What goes wrong in it is its evidence against it.
    pub(crate) fn show(&mut self, name: &'static str, show: impl FnOnce() -> Result<String>) {
        let (ok, evidence) = match show() {
            Ok(evidence) => (true, evidence),
            Err(error) => (false, format!("{error:#}")),
        };
        let number = self.facts.len() + 1;
        screen::folded(&format!("{} {number:>2}. {name}", mark(ok)), 0);
        screen::folded(&evidence, 9);
        self.facts.push(Fact { name, ok, evidence });
    }

    /// Whether all hold, and there is one at all.
    pub(crate) fn all_hold(&self) -> bool {
        !self.facts.is_empty() && self.facts.iter().all(|fact| fact.ok)
    }

    /// The last words.
    pub(crate) fn summarize(&self) {
        let hold = self.facts.iter().filter(|fact| fact.ok).count();
        screen::line("");
        screen::title(&format!("{hold} of {} facts hold", self.facts.len()));
        for fact in self.facts.iter().filter(|fact| !fact.ok) {
            screen::folded(&format!("{} {}", mark(false), fact.name), 0);
        }
    }

    /// Writes the file of `--json`.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }
}

fn mark(ok: bool) -> &'static str {
    if ok { "[ ok ]" } else { "[FAIL]" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_fact_that_fails_fails_the_whole() {
        let mut report = Report::default();
        assert!(!report.all_hold(), "nothing shown is nothing proven");
        report.show("holds", || Ok("seen".to_owned()));
        assert!(report.all_hold());
        report.show("does not", || anyhow::bail!("not seen"));
        assert!(!report.all_hold());
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["facts"][1]["evidence"], "not seen");
    }
}
