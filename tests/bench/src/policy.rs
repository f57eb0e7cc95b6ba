//! The policy run: what a decision, a change and a workload cost in the core, by how much there is of everything.
//!
//! No agent, no namespaces, no root: the core is called as the agent calls it.

mod decision;
mod made;
mod memory;
mod update;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::results::{Begun, Results};
use crate::screen;
use crate::sized::Row;

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

/// Of decisions `n` is policies, of the others workloads.
#[derive(Debug, Serialize)]
struct Body {
    rows: Vec<Row>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Begun::alone()?;
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
    let results = begun.end(&args.commit, args.rounds, Body { rows });
    show(&results);
    results.write(args.json.as_deref())
}

fn show(results: &Results<'_, Body>) {
    results.show_head(|runs| format!("median (lowest..highest) of {runs} runs"));
    for row in &results.body.rows {
        screen::line(&format!(
            "{:<20} n = {:<7} {:>12.1} {:<9} {}",
            row.case,
            row.n,
            row.value,
            row.unit,
            row.spread()
        ));
    }
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
