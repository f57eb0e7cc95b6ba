//! What all suites have in common: how a run begins, what its results say of themselves, and the file they go to.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tramline_harness::interrupt;
use tramline_harness::run::{self, Which};

use crate::machine::Machine;
use crate::screen;

/// The run has begun: when, and on what.
#[derive(Debug)]
pub(crate) struct Begun {
    machine: Machine,
    date: String,
}

/// The file of `--json`: the same head for every suite, then what it measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results<'a, Body> {
    machine: Machine,
    commit: &'a str,
    /// When it began, UTC.
    date: String,
    /// How the benchmark and, beside it, the agent were built.
    profile: &'static str,
    rounds: u32,
    #[serde(flatten)]
    pub(crate) body: Body,
}

impl Begun {
    /// A run that calls the core only.
    ///
    /// # Errors
    /// There is no time.
    pub(crate) fn alone() -> Result<Self> {
        let date = OffsetDateTime::now_utc()
            .replace_nanosecond(0)?
            .format(&Rfc3339)?;
        let machine = Machine::look();
        screen::progress(&machine.describe());
        Ok(Self { machine, date })
    }

    /// A run with agents and pods, which are removed also when it is interrupted.
    ///
    /// # Errors
    /// This is not root, or what a crashed run left behind stays.
    pub(crate) fn with_pods() -> Result<Self> {
        if !run::is_root() {
            bail!("the benchmark makes network namespaces and loads eBPF programs: it needs root");
        }
        interrupt::watch(screen::complain)?;
        run::clean(Which::Crashed)?;
        Self::alone()
    }

    /// It is done.
    pub(crate) fn end<Body: Serialize>(mut self, commit: &str, rounds: u32, body: Body) -> Results<'_, Body> {
        self.machine.look_again();
        Results {
            machine: self.machine,
            commit,
            date: self.date,
            profile: if cfg!(debug_assertions) {
                "debug"
            } else {
                "release"
            },
            rounds,
            body,
        }
    }
}

impl<Body: Serialize> Results<'_, Body> {
    /// Shows the head; `figures` says what the figures are of so many runs.
    pub(crate) fn show_head(&self, figures: impl FnOnce(u32) -> String) {
        screen::line(&self.machine.describe());
        screen::line(&format!(
            "commit {}, {} build, {}; {}",
            self.commit,
            self.profile,
            self.date,
            figures(self.rounds)
        ));
        if self.profile != "release" {
            screen::line("A debug build: these figures say nothing about the mesh");
        }
    }

    /// Writes the file, if one is asked for.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else {
            return Ok(());
        };
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Body {
        base: u32,
        rows: Vec<u32>,
    }

    #[test]
    fn the_body_follows_the_head_in_one_object() {
        let body = Body {
            base: 1,
            rows: vec![2],
        };
        let results = Begun::alone().expect("a machine").end("abc", 7, body);
        let text = serde_json::to_string(&results).expect("JSON");
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
        let order = [
            "{\"machine\":{\"kernel\":",
            ",\"commit\":\"abc\",",
            ",\"date\":\"",
            ",\"profile\":\"",
            ",\"rounds\":7,",
            ",\"base\":1,",
            ",\"rows\":[2]}",
        ]
        .map(at);
        assert!(order.is_sorted(), "{text}");
        assert_eq!(order[0], 0, "{text}");
    }
}
