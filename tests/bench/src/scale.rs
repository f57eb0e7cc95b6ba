//! The run of sizes: what a connection, a change and the agent cost, by how much there is of everything. One axis at a
//! time, the others at their base.

mod charts;
mod entries;
mod made;
mod memory;
mod world;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde::Serialize;

use self::world::{Figures, World};
use crate::results::{Begun, Results};
use crate::screen;
use crate::sized::Row;

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

/// The case of a row is its axis.
#[derive(Debug, Serialize)]
struct Body {
    base: Size,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Begun::with_pods()?;
    let rounds = if args.quick { 1 } else { args.rounds };
    let rows = measure(rounds, args.quick)?;
    let results = begun.end(&args.commit, rounds, Body { base: BASE, rows });
    show(&results);
    results.write(args.json.as_deref())
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

fn show(results: &Results<'_, Body>) {
    let Body { base, rows } = &results.body;
    let Size {
        pods,
        policies,
        workloads,
    } = base;
    results.show_head(|runs| {
        format!(
            "median (lowest..highest) of {runs} runs; base: {pods} pods' entries, {policies} policies, {workloads} workloads"
        )
    });
    for row in rows {
        screen::line(&format!(
            "{:<10} n = {:<7} {:<24} {:>10.1} {:<4} {}",
            row.case,
            row.n,
            row.metric,
            row.value,
            row.unit,
            row.spread()
        ));
    }
    charts::of(rows).iter().for_each(|chart| screen::line(chart));
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
