//! The run of paths: what a connection costs on each way through the mesh, against none at all, and whether that is within
//! the bars.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use serde::Serialize;

use crate::load::{Load, PATHS};
use crate::pair::Place;
use crate::results::{Begun, Results};
use crate::rows::{Rounds, Row};
use crate::stage::Stage;
use crate::{screen, smoke};

#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Write the results to FILE: {machine, commit, ..., "rows": [{path, load, metric, unit, value, ratio_to_no_mesh, ratio_interval, runs}], "bars": [...]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The commit that the agent was built from, for the results
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// How many pairs of runs of every load on every path
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Only these paths, such as `same_node_direct`
    #[arg(long = "path", value_name = "NAME", value_parser = PossibleValuesParser::new(Place::PATHS.map(name_of)))]
    paths: Vec<String>,
    /// Only these loads, such as `connect_close`
    #[arg(long = "load", value_name = "NAME", value_parser = PossibleValuesParser::new(PATHS.map(|(name, _)| name)))]
    loads: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Body {
    rows: Vec<Row>,
    bars: Vec<Bar>,
}

/// A promise, and whether this run breaks it.
#[derive(Debug, Serialize)]
struct Bar {
    path: &'static str,
    load: &'static str,
    metric: &'static str,
    /// At least, or at most.
    bound: &'static str,
    bar: f64,
    ratio: f64,
    interval: Option<[f64; 2]>,
    /// False only if the whole interval is beyond the bar.
    held: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let begun = Begun::with_pods()?;
    let mut stage = Stage::build(true)?;
    let rounds = smoke::measure_all(&mut stage, chosen(args), args.rounds)?;
    stage.verify()?;
    screen::progress("removing namespaces, links, cgroups and programs");
    stage.end()?;
    let rows: Vec<Row> = rounds
        .iter()
        .flat_map(|rounds| rounds.rows(false))
        .filter_map(renamed)
        .collect();
    let bars = rows.iter().filter_map(bar).collect();
    let results = begun.end(&args.commit, args.rounds, Body { rows, bars });
    show(&results);
    results.write(args.json.as_deref())?;
    verdict(&results.body.bars)
}

/// A broken promise is a failed run, after its results have been written.
fn verdict(bars: &[Bar]) -> Result<()> {
    match bars.iter().filter(|bar| !bar.held).count() {
        0 => Ok(()),
        broken => bail!("{broken} of {} bars are broken", bars.len()),
    }
}

/// The pairs that are asked for; where nothing is named, all.
fn chosen(args: &Args) -> Vec<(Rounds, Load)> {
    let is_chosen = |names: &[String], name| names.is_empty() || names.iter().any(|chosen| chosen == name);
    let places = Place::PATHS
        .into_iter()
        .filter(|place| is_chosen(&args.paths, name_of(*place)));
    let loads = PATHS.into_iter().filter(|(name, _)| is_chosen(&args.loads, name));
    places
        .flat_map(|place| {
            loads
                .clone()
                .map(move |(name, load)| (Rounds::new(place, name), load))
        })
        .collect()
}

/// How the rows of this run call the mesh's half of a place.
fn name_of(place: Place) -> &'static str {
    match place {
        Place::Outside => "pass_through",
        Place::SameNode => "same_node_direct",
        Place::CrossNode => "cross_node",
    }
}

/// The same figure under the name and in the unit of this run.
fn renamed(row: Row) -> Option<Row> {
    const GB_PER_GIB: f64 = 1.073_741_824;
    let path = match row.path {
        "no_mesh_same_node" => "no_mesh",
        "no_mesh_cross_node" => "no_mesh_cross_node",
        "no_mesh_outside" => "no_mesh_outside",
        "outside" => name_of(Place::Outside),
        "same_node" => name_of(Place::SameNode),
        other => other,
    };
    let (metric, unit, factor) = match (row.metric, row.unit) {
        ("throughput", _) => ("gbit_per_s", "Gbit/s", 1.0),
        ("latency_p50", _) => ("p50_us", "us", 1.0),
        ("latency_p99", _) => ("p99_us", "us", 1.0),
        ("rate", _) => ("connections_per_s", "1/s", 1.0),
        ("all_cpu", "cpu-s/GB") => ("cpu_s_per_gib", "s", GB_PER_GIB),
        ("all_cpu", "us/connection") => ("cpu_s_per_10k_connections", "s", 1e4 / 1e6),
        ("all_cpu", _) => ("cpu_us_per_round_trip", "us", 1.0),
        ("agent_cpu", "cpu-s/GB") => ("agent_cpu_s_per_gib", "s", GB_PER_GIB),
        ("agent_cpu", "us/connection") => ("agent_cpu_s_per_10k_connections", "s", 1e4 / 1e6),
        ("agent_cpu", _) => ("agent_cpu_us_per_round_trip", "us", 1.0),
        ("captured", _) => ("connections_by_agent", "1", 1.0),
        _ => return None,
    };
    let times = |value: f64| value * factor;
    Some(Row {
        path,
        metric,
        unit,
        value: times(row.value),
        runs: row.runs.into_iter().map(times).collect(),
        ..row
    })
}

/// The promise that a row is measured by: what the kernel carries alone is as good as no mesh.
fn bar(row: &Row) -> Option<Bar> {
    if !matches!(row.path, "pass_through" | "same_node_direct") {
        return None;
    }
    let (bound, bar) = match row.metric {
        "gbit_per_s" => ("at least", 0.95),
        "connections_per_s" => ("at least", 0.8),
        // What a short connection may cost is the bar of the rate: one after the other, it is the reciprocal.
        "p50_us" if row.load.starts_with("round_trip") => ("at most", 1.05),
        _ => return None,
    };
    let ratio = row.ratio_to_no_mesh?;
    let [low, high] = row.ratio_interval.unwrap_or([ratio, ratio]);
    Some(Bar {
        path: row.path,
        load: row.load,
        metric: row.metric,
        bound,
        bar,
        ratio,
        interval: row.ratio_interval,
        held: if bound == "at least" {
            high >= bar
        } else {
            low <= bar
        },
    })
}

fn show(results: &Results<'_, Body>) {
    results.show_head(|runs| {
        format!("medians of {runs} runs, the ratio of each pair to no mesh with its 95 % interval")
    });
    let Body { rows, bars } = &results.body;
    for row in rows {
        let ratio = row.ratio_to_no_mesh.map_or_else(String::new, |ratio| {
            format!("{ratio:.2}{}", between(row.ratio_interval))
        });
        screen::line(&format!(
            "{:<20} {:<15} {:<26} {:>12.2} {:<7} {ratio}",
            row.path, row.load, row.metric, row.value, row.unit
        ));
    }
    screen::line("");
    for bar in bars {
        let verdict = if bar.held { "held  " } else { "BROKEN" };
        screen::line(&format!(
            "{verdict} {} {} {}: {} {:.2}, measured {:.2}{}",
            bar.path,
            bar.load,
            bar.metric,
            bar.bound,
            bar.bar,
            bar.ratio,
            between(bar.interval)
        ));
    }
}

fn between(interval: Option<[f64; 2]>) -> String {
    interval.map_or_else(String::new, |[low, high]| format!(" ({low:.2}..{high:.2})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &'static str, metric: &'static str, ratio: f64, interval: [f64; 2]) -> Row {
        Row {
            path,
            load: "round_trip_64b",
            metric,
            unit: "us",
            value: 1.0,
            ratio_to_no_mesh: Some(ratio),
            ratio_interval: Some(interval),
            runs: vec![1.0],
        }
    }

    #[test]
    fn a_bar_is_broken_only_by_the_whole_interval() {
        for (metric, ratio, interval, held) in [
            ("gbit_per_s", 0.90, [0.80, 0.96], true),
            ("gbit_per_s", 0.90, [0.80, 0.94], false),
            ("p50_us", 1.10, [1.04, 1.20], true),
            ("p50_us", 1.10, [1.06, 1.20], false),
            ("connections_per_s", 0.70, [0.60, 0.81], true),
            ("connections_per_s", 0.70, [0.60, 0.79], false),
        ] {
            let bar = bar(&row("same_node_direct", metric, ratio, interval)).expect("a bar");
            assert_eq!(bar.held, held, "{metric} {interval:?}");
        }
        assert!(
            bar(&row("cross_node", "p50_us", 2.0, [2.0, 2.0])).is_none(),
            "no promise"
        );
    }

    #[test]
    fn a_run_with_a_broken_bar_fails() {
        let of = |intervals: &[[f64; 2]]| {
            let rows = intervals
                .iter()
                .map(|interval| row("pass_through", "p50_us", interval[0], *interval));
            verdict(&rows.filter_map(|row| bar(&row)).collect::<Vec<_>>())
        };
        of(&[]).expect("no bar");
        of(&[[0.9, 1.1], [1.0, 1.0]]).expect("two bars that held");
        let error = of(&[[0.9, 1.1], [1.06, 1.1]]).expect_err("a broken bar");
        assert_eq!(error.to_string(), "1 of 2 bars are broken");
    }

    #[test]
    fn a_run_can_be_of_some_loads_on_some_paths() {
        let args = |paths: &[&str], loads: &[&str]| Args {
            json: None,
            commit: String::new(),
            rounds: 1,
            paths: paths.iter().map(ToString::to_string).collect(),
            loads: loads.iter().map(ToString::to_string).collect(),
        };
        let of = |args| {
            let pairs = chosen(&args);
            let names = pairs
                .iter()
                .map(|(rounds, _)| (name_of(rounds.place), rounds.load));
            names.collect::<Vec<_>>()
        };
        assert_eq!(of(args(&[], &[])).len(), Place::PATHS.len() * PATHS.len());
        assert_eq!(
            of(args(&["same_node_direct", "cross_node"], &["connect_close"])),
            [
                ("same_node_direct", "connect_close"),
                ("cross_node", "connect_close")
            ]
        );
    }

    #[test]
    fn units_are_those_of_the_names() {
        let measured = Row {
            unit: "cpu-s/GB",
            ..row("outside", "all_cpu", 1.0, [1.0, 1.0])
        };
        let renamed = renamed(measured).expect("a row");
        assert_eq!((renamed.path, renamed.metric), ("pass_through", "cpu_s_per_gib"));
        assert!((renamed.value - 1.0737).abs() < 0.001);
    }
}
