//! The rows as charts for docs/BENCHMARKS.md: each figure over all sizes of all axes.

use super::Row;

/// Title, unit and the metrics of one chart, of which the first is bars and the others are lines.
type Chart = (&'static str, &'static str, &'static [&'static str]);

const CHARTS: [Chart; 3] = [
    (
        "Connect, a byte there and back, close: bars by the agent, lines by the kernel and without a mesh",
        "us",
        &["connect_agent_p50", "connect_kernel_p50", "connect_no_mesh_p50"],
    ),
    (
        "A changed policy, from the file to the acknowledgement (100 ms of it a wait)",
        "ms",
        &["update"],
    ),
    (
        "Memory: bars the agent, line the kernel's maps",
        "MiB",
        &["agent_resident", "kernel_maps"],
    ),
];

/// Fenced blocks of mermaid. Of latencies the lowest run counts: a machine that does something else at the same time has two
/// speeds, several times apart.
pub(super) fn of(rows: &[Row]) -> Vec<String> {
    CHARTS.iter().map(|chart| one(*chart, rows)).collect()
}

fn one((title, unit, metrics): Chart, rows: &[Row]) -> String {
    let of = |metric: &'static str| rows.iter().filter(move |row| row.metric == metric);
    let height = |row: &Row| match row.unit {
        "us" => row.runs.iter().copied().fold(f64::INFINITY, f64::min),
        _ => row.value,
    };
    let names: Vec<String> = metrics
        .first()
        .into_iter()
        .flat_map(|metric| of(metric))
        .map(|row| format!("\"{} {}\"", row.case, row.n))
        .collect();
    let highest = metrics
        .iter()
        .flat_map(|metric| of(metric))
        .map(height)
        .fold(0.0, f64::max);
    let mut lines = vec![
        "```mermaid".to_owned(),
        "xychart-beta".to_owned(),
        format!("    title \"{title}\""),
        format!("    x-axis [{}]", names.join(", ")),
        format!("    y-axis \"{unit}\" 0 --> {:.0}", (highest * 1.2).max(1.0)),
    ];
    for (index, metric) in metrics.iter().enumerate() {
        let values: Vec<String> = of(metric).map(|row| format!("{:.1}", height(row))).collect();
        let kind = if index == 0 { "bar" } else { "line" };
        lines.push(format!("    {kind} [{}]", values.join(", ")));
    }
    lines.push("```".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_every_size_in_order() {
        let row = |n, metric, value| Row {
            case: "pods",
            n,
            metric,
            unit: if metric == "update" { "ms" } else { "us" },
            value,
            runs: vec![value + 1.0, value - 1.0],
        };
        let rows = [
            row(10, "update", 100.0),
            row(10, "connect_agent_p50", 90.0),
            row(1_000, "update", 200.0),
            row(1_000, "connect_agent_p50", 95.0),
        ];
        let charts = of(&rows);
        assert!(
            charts[0].contains("bar [89.0, 94.0]"),
            "the lowest run: {}",
            charts[0]
        );
        assert!(
            charts[1].contains("x-axis [\"pods 10\", \"pods 1000\"]")
                && charts[1].contains("0 --> 240")
                && charts[1].contains("bar [100.0, 200.0]"),
            "{}",
            charts[1]
        );
    }
}
