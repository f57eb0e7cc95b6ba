//! The smoke run: every load on every path, no mesh and mesh by turns, for about two minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tramline_harness::interrupt;
use tramline_harness::run::{self, Which};

use crate::load::{Load, SMOKE};
use crate::machine::Machine;
use crate::pair::{Place, Side};
use crate::rows::{Figure, Rounds, Row};
use crate::stage::Stage;
use crate::{screen, table};

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Write the results to FILE: {machine, commit, ..., "rows": [{path, load, metric, unit, value, ...}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The commit that the agent was built from, for the results
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// How many pairs of runs of every load in every place
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Start no agent: both halves of every pair are no mesh, and their ratios show this machine's noise
    #[arg(long)]
    control: bool,
}

/// The file of `--json`.
#[derive(Debug, Serialize)]
struct Results<'a> {
    machine: Machine,
    commit: &'a str,
    /// When it began, UTC.
    date: String,
    /// How load generator and, beside it, the agent were built.
    profile: &'static str,
    rounds: u32,
    control: bool,
    /// Connections of the mesh's side, each counted by the agent of the client's node too.
    connections_counted_by_agent: u64,
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
    let mut stage = Stage::build(!args.control)?;
    let rounds = measure(&mut stage, args.rounds)?;
    let counted = stage.verify()?;
    screen::progress("removing namespaces, links, cgroups and programs");
    stage.end()?;
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
        control: args.control,
        connections_counted_by_agent: counted,
        rows: rounds
            .iter()
            .flat_map(|rounds| rounds.rows(args.control))
            .collect(),
    };
    show(&results);
    args.json.as_deref().map_or(Ok(()), |file| write(file, &results))
}

fn measure(stage: &mut Stage, rounds: u32) -> Result<Vec<Rounds>> {
    let all = Place::SMOKE
        .into_iter()
        .flat_map(|place| SMOKE.map(|(name, load)| (Rounds::new(place, name), load)))
        .collect();
    measure_all(stage, all, rounds)
}

/// Every load in its place, both sides by turns, as often as asked for.
pub(crate) fn measure_all(
    stage: &mut Stage,
    mut all: Vec<(Rounds, Load)>,
    rounds: u32,
) -> Result<Vec<Rounds>> {
    let start = Instant::now();
    for round in 1..=rounds {
        for (rounds, load) in &mut all {
            for (side, runs) in Side::BOTH.into_iter().zip(&mut rounds.sides) {
                let place = rounds.place;
                let run = stage
                    .measure(place, side, *load)
                    .with_context(|| format!("{}, {}, {}", rounds.load, place.name(), side.name()))?;
                runs.push(Figure::of(*load, &run));
            }
        }
        let elapsed = start.elapsed().as_secs();
        screen::progress(&format!("round {round} of {rounds} done, {elapsed} s"));
    }
    Ok(all.into_iter().map(|(rounds, _)| rounds).collect())
}

fn show(results: &Results<'_>) {
    screen::line(&results.machine.describe());
    screen::line(&format!(
        "commit {}, {} build, {}; median (lowest..highest) of {} runs, ratio of mesh to no mesh within pairs",
        results.commit, results.profile, results.date, results.rounds
    ));
    if results.control {
        screen::line("CONTROL: no agent runs, the side called mesh has none either");
    }
    if results.profile != "release" {
        screen::line("A debug build: these figures say nothing about the mesh");
    }
    table::lines(&results.rows)
        .iter()
        .for_each(|line| screen::line(line));
}

fn write(file: &Path, results: &Results<'_>) -> Result<()> {
    let text = serde_json::to_string_pretty(results)?;
    fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))
}
