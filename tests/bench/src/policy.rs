//! The policy run: what a decision, a change and a workload cost in the core, by how much there is of everything.
//!
//! No agent, no namespaces, no root: the core is called as the agent calls it.

mod decision;
mod made;
mod memory;
mod update;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::machine::Machine;
use crate::screen;
use crate::statistics::median;

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Write the results to FILE: {machine, commit, ..., "rows": [{case, n, metric, unit, value, runs}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The commit that was built, for the results
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// How often each figure is taken
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
}

/// One metric of one case at one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    /// Policies for decisions, workloads for the others.
    pub(crate) n: u32,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// The median of `runs`.
    pub(crate) value: f64,
    /// In the order in which they were taken.
    pub(crate) runs: Vec<f64>,
}

impl Row {
    fn new(
        case: &'static str,
        n: u32,
        metric: &'static str,
        unit: &'static str,
        runs: Vec<f64>,
    ) -> Result<Self> {
        let value = median(&runs).with_context(|| format!("{case} {n} was never measured"))?;
        Ok(Self {
            case,
            n,
            metric,
            unit,
            value,
            runs,
        })
    }
}

/// The file of `--json`.
#[derive(Debug, Serialize)]
struct Results<'a> {
    machine: Machine,
    commit: &'a str,
    /// When it began, UTC.
    date: String,
    profile: &'static str,
    rounds: u32,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let date = OffsetDateTime::now_utc()
        .replace_nanosecond(0)?
        .format(&Rfc3339)?;
    let mut machine = Machine::look();
    screen::progress(&machine.describe());
    let mut rows = Vec::new();
    for policies in [10, 1_000, 10_000] {
        screen::progress(&format!("decisions with {policies} policies"));
        rows.extend(decision::rows(policies, args.rounds)?);
    }
    for workloads in [100, 10_000, 100_000] {
        screen::progress(&format!("memory and updates with {workloads} workloads"));
        rows.push(memory::row(workloads, args.rounds)?);
        rows.extend(update::rows(workloads, args.rounds)?);
    }
    machine.look_again();
    let results = Results {
        machine,
        commit: &args.commit,
        date,
        profile: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
        rounds: args.rounds,
        rows,
    };
    show(&results);
    args.json.as_deref().map_or(Ok(()), |file| write(file, &results))
}

fn show(results: &Results<'_>) {
    screen::line(&results.machine.describe());
    screen::line(&format!(
        "commit {}, {} build, {}; median (lowest..highest) of {} runs",
        results.commit, results.profile, results.date, results.rounds
    ));
    if results.profile != "release" {
        screen::line("A debug build: these figures say nothing about the mesh");
    }
    for row in &results.rows {
        let low = row.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = row.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        screen::line(&format!(
            "{:<20} n = {:<7} {:>12.1} {:<9} ({low:.1}..{high:.1})",
            row.case, row.n, row.value, row.unit
        ));
    }
}

fn write(file: &Path, results: &Results<'_>) -> Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_gives_a_row_that_was_measured() {
        let mut rows = decision::rows(10, 1).expect("decisions").to_vec();
        rows.push(memory::row(50, 1).expect("memory"));
        rows.extend(update::rows(50, 1).expect("updates"));
        for case in [
            "decision",
            "decision_denied",
            "memory",
            "update",
            "update_policy",
            "update_pod",
            "update_service",
            "update_mesh_policy",
            "update_rebuild",
        ] {
            let row = rows.iter().find(|row| row.case == case).expect(case);
            assert!(row.value > 0.0 && row.runs.len() == 1, "{row:?}");
        }
    }
}
