//! From counters to rates.

use std::collections::HashMap;
use std::time::Instant;

use serde::Serialize;

use crate::cli::output;
use crate::observe::admin::api::{TrafficReport, TrafficRow};

/// Names of the columns.
pub(super) const HEADER: [&str; 8] = [
    "DIR",
    "SOURCE",
    "DESTINATION",
    "OPEN",
    "CONN/S",
    "FAIL/S",
    "SENT/S",
    "RECV/S",
];

type Key = (String, String, String);

/// Holds the last look, no more: memory is bounded by what one answer of the agent holds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<(Instant, HashMap<Key, TrafficRow>)>,
}

/// What is shown at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(in crate::cli) struct Frame {
    /// The agent's node.
    pub(in crate::cli) agent_node: String,
    /// Whether the agent is ready.
    pub(in crate::cli) ready: bool,
    /// Connections it carries.
    pub(in crate::cli) connections: usize,
    /// The pairs, the busiest first.
    pub(in crate::cli) pairs: Vec<Rate>,
}

/// One pair of workloads.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(in crate::cli) struct Rate {
    /// `outbound` or `inbound`.
    pub(in crate::cli) direction: String,
    /// Who dials.
    pub(in crate::cli) source: String,
    /// Who is dialled.
    pub(in crate::cli) destination: String,
    /// Connections up at this moment.
    pub(in crate::cli) open: u64,
    /// Connections established per second.
    pub(in crate::cli) opened_per_second: f64,
    /// Connections that failed per second.
    pub(in crate::cli) failed_per_second: f64,
    /// Bytes towards the destination per second.
    pub(in crate::cli) to_destination_per_second: f64,
    /// Bytes towards the source per second.
    pub(in crate::cli) to_source_per_second: f64,
}

impl Rate {
    /// The cells under [`HEADER`].
    pub(super) fn cells(&self) -> [String; 8] {
        let direction = if self.direction == "inbound" { "in" } else { "out" };
        [
            direction.to_owned(),
            self.source.clone(),
            self.destination.clone(),
            self.open.to_string(),
            count(self.opened_per_second),
            count(self.failed_per_second),
            bytes(self.to_destination_per_second),
            bytes(self.to_source_per_second),
        ]
    }

    /// Bytes per second, both ways.
    pub(super) fn bytes(&self) -> f64 {
        self.to_destination_per_second + self.to_source_per_second
    }

    /// Connections per second, failed ones too.
    pub(super) fn attempts(&self) -> f64 {
        self.opened_per_second + self.failed_per_second
    }
}

impl Meter {
    /// The rates since the last look; all zero at the first.
    pub(super) fn measure(&mut self, report: TrafficReport, now: Instant) -> Frame {
        let seconds = self
            .last
            .as_ref()
            .map(|(then, _)| now.saturating_duration_since(*then).as_secs_f64())
            .filter(|seconds| *seconds > 0.0);
        let none = HashMap::new();
        let before = self.last.as_ref().map_or(&none, |(_, rows)| rows);
        let mut pairs: Vec<_> = report
            .pairs
            .iter()
            .map(|row| rate(row, before.get(&key(row)), seconds))
            .collect();
        pairs.sort_by(|a, b| busiest(a, b, Rate::bytes));
        let frame = Frame {
            agent_node: report.agent_node,
            ready: report.ready,
            connections: report.connections,
            pairs,
        };
        let rows = report.pairs.into_iter().map(|row| (key(&row), row));
        self.last = Some((now, rows.collect()));
        frame
    }
}

/// By a rate, the largest first; the idle by name, so that rows do not jump about.
pub(super) fn busiest(a: &Rate, b: &Rate, by: impl Fn(&Rate) -> f64) -> std::cmp::Ordering {
    let name = |rate: &Rate| {
        (
            rate.source.clone(),
            rate.destination.clone(),
            rate.direction.clone(),
        )
    };
    by(b)
        .total_cmp(&by(a))
        .then_with(|| b.attempts().total_cmp(&a.attempts()))
        .then_with(|| name(a).cmp(&name(b)))
}

fn key(row: &TrafficRow) -> Key {
    (row.direction.clone(), row.source.clone(), row.destination.clone())
}

fn rate(row: &TrafficRow, before: Option<&TrafficRow>, seconds: Option<f64>) -> Rate {
    // A pair that was not there before began at zero; an agent that restarted began again.
    let since = |now: u64, of: fn(&TrafficRow) -> u64| {
        let then = before.map_or(0, of);
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let grown = now.checked_sub(then).unwrap_or(now) as f64;
        seconds.map_or(0.0, |seconds| grown / seconds)
    };
    Rate {
        direction: row.direction.clone(),
        source: row.source.clone(),
        destination: row.destination.clone(),
        open: row.opened.saturating_sub(row.closed),
        opened_per_second: since(row.opened, |row| row.opened),
        failed_per_second: since(row.failed, |row| row.failed),
        to_destination_per_second: since(row.to_destination, |row| row.to_destination),
        to_source_per_second: since(row.to_source, |row| row.to_source),
    }
}

fn count(rate: f64) -> String {
    if rate == 0.0 || rate >= 10.0 {
        format!("{rate:.0}")
    } else {
        format!("{rate:.1}")
    }
}

fn bytes(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative, and a cast from a float saturates"
    )]
    let whole = rate.round() as u64;
    output::bytes(whole)
}
