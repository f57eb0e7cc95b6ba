//! The run of sizes: what a connection, a change and the agent cost, by how much there is of everything. One axis at a
//! time, the others at their base.

mod charts;
mod entries;
mod made;
mod memory;
mod world;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tramline_harness::interrupt;
use tramline_harness::run::{self, Which};

use self::world::{Figures, World};
use crate::machine::Machine;
use crate::screen;
use crate::statistics::median;

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Write the results to FILE: {machine, commit, ..., "base", "rows": [{case, n, metric, unit, value, runs}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The commit that the agent was built from, for the results
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// How often each figure is taken at each size
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Small sizes and one round, in some seconds: shows that it works, and nothing else
    #[arg(long)]
    quick: bool,
}

/// How much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Size {
    /// Pods whose entries are in the kernel's maps, beside the two that are measured.
    pub(crate) pods: u32,
    /// Policies for the server that is dialled, ten rules each.
    pub(crate) policies: u32,
    /// Workloads of other nodes.
    pub(crate) workloads: u32,
}

/// One axis: how it is called, its sizes, and how one of them is put into a [`Size`].
struct Axis {
    name: &'static str,
    sizes: [u32; 3],
    put: fn(Size, u32) -> Size,
}

const BASE: Size = Size {
    pods: 10,
    policies: 10,
    workloads: 100,
};

/// Pods last: their entries stay in the maps, which outlive the agents.
const AXES: [Axis; 3] = [
    Axis {
        name: "policies",
        sizes: [10, 1_000, 10_000],
        put: |size, policies| Size { policies, ..size },
    },
    Axis {
        name: "workloads",
        sizes: [100, 10_000, 100_000],
        put: |size, workloads| Size { workloads, ..size },
    },
    Axis {
        name: "pods",
        sizes: [10, 1_000, 5_000],
        put: |size, pods| Size { pods, ..size },
    },
];

/// The second size of each axis in a quick run, and its last.
const QUICK: u32 = 200;

/// One metric at one size of one axis.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// The axis.
    pub(crate) case: &'static str,
    pub(crate) n: u32,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// The median of `runs`.
    pub(crate) value: f64,
    /// In the order in which they were taken.
    pub(crate) runs: Vec<f64>,
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
    base: Size,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !run::is_root() {
        bail!("the benchmark makes network namespaces and loads eBPF programs: it needs root");
    }
    interrupt::watch(screen::complain)?;
    run::clean(Which::Crashed)?;
    let date = OffsetDateTime::now_utc()
        .replace_nanosecond(0)?
        .format(&Rfc3339)?;
    let mut machine = Machine::look();
    screen::progress(&machine.describe());
    let rounds = if args.quick { 1 } else { args.rounds };
    let rows = measure(rounds, args.quick)?;
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
        rounds,
        base: BASE,
        rows,
    };
    show(&results);
    match &args.json {
        None => Ok(()),
        Some(file) => {
            let text = serde_json::to_string_pretty(&results)?;
            fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
        }
    }
}

fn measure(rounds: u32, quick: bool) -> Result<Vec<Row>> {
    let start = Instant::now();
    let mut world = World::build(quick)?;
    let mut at = |size: Size| -> Result<Figures> {
        screen::progress(&format!(
            "{} pods' entries, {} policies, {} workloads ({} s)",
            size.pods,
            size.policies,
            size.workloads,
            start.elapsed().as_secs()
        ));
        world.measure(size, rounds).with_context(|| format!("{size:?}"))
    };
    let base = at(BASE)?;
    let mut rows = Vec::new();
    for axis in &AXES {
        let [first, others @ ..] = if quick {
            [axis.sizes[0], QUICK, 2 * QUICK]
        } else {
            axis.sizes
        };
        rows.extend(base.rows(axis.name, first)?);
        for n in others {
            rows.extend(at((axis.put)(BASE, n))?.rows(axis.name, n)?);
        }
    }
    screen::progress("removing namespaces, links, cgroups and programs");
    world.end()?;
    Ok(rows)
}

impl Row {
    pub(crate) fn new(
        case: &'static str,
        n: u32,
        metric: &'static str,
        unit: &'static str,
        runs: Vec<f64>,
    ) -> Result<Self> {
        let value = median(&runs).with_context(|| format!("{case} {n}: {metric} was never measured"))?;
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

fn show(results: &Results<'_>) {
    screen::line(&results.machine.describe());
    let Size {
        pods,
        policies,
        workloads,
    } = results.base;
    screen::line(&format!(
        "commit {}, {} build, {}; median (lowest..highest) of {} runs; base: {pods} pods' entries, {policies} policies, \
         {workloads} workloads",
        results.commit, results.profile, results.date, results.rounds
    ));
    if results.profile != "release" {
        screen::line("A debug build: these figures say nothing about the mesh");
    }
    for row in &results.rows {
        let low = row.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = row.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        screen::line(&format!(
            "{:<10} n = {:<7} {:<24} {:>10.1} {:<4} ({low:.1}..{high:.1})",
            row.case, row.n, row.metric, row.value, row.unit
        ));
    }
    charts::of(&results.rows)
        .iter()
        .for_each(|chart| screen::line(chart));
}

#[cfg(test)]
mod tests {
    use super::{AXES, BASE, Size};

    #[test]
    fn each_axis_begins_at_the_base_and_changes_nothing_else() {
        for axis in &AXES {
            assert_eq!((axis.put)(BASE, axis.sizes[0]), BASE, "{}", axis.name);
        }
        let all = AXES.iter().fold(BASE, |size, axis| (axis.put)(size, 7));
        let sevens = Size {
            pods: 7,
            policies: 7,
            workloads: 7,
        };
        assert_eq!(all, sevens, "every field has an axis");
    }
}
