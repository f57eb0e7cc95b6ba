//! The smoke run: every load on every path, no mesh and mesh by turns, for about two minutes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::load::{Load, SMOKE};
use crate::pair::{Place, Side};
use crate::results::{Begun, Results};
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

#[derive(Debug, Serialize)]
struct Body {
    control: bool,
    /// Connections of the mesh's side, each counted by the agent of the client's node too.
    connections_counted_by_agent: u64,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Begun::with_pods()?;
    let mut stage = Stage::build(!args.control)?;
    let rounds = measure(&mut stage, args.rounds)?;
    let counted = stage.verify()?;
    screen::progress("removing namespaces, links, cgroups and programs");
    stage.end()?;
    let body = Body {
        control: args.control,
        connections_counted_by_agent: counted,
        rows: rounds
            .iter()
            .flat_map(|rounds| rounds.rows(args.control))
            .collect(),
    };
    let results = begun.end(&args.commit, args.rounds, body);
    show(&results);
    results.write(args.json.as_deref())
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

fn show(results: &Results<'_, Body>) {
    results.show_head(|runs| {
        format!("median (lowest..highest) of {runs} runs, ratio of mesh to no mesh within pairs")
    });
    if results.body.control {
        screen::line("CONTROL: no agent runs, the side called mesh has none either");
    }
    table::lines(&results.body.rows)
        .iter()
        .for_each(|line| screen::line(line));
}
