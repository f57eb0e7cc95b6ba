//! The rows for a person: each pair on one line.

use crate::rows::Row;

/// The lines of the table; `rows` in the order in which they were made.
pub(crate) fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut shown = ("", "");
    for row in rows.iter().filter(|row| !is_base(row)) {
        if shown.0 != row.path {
            lines.push(String::new());
            lines.push(row.path.replace('_', " "));
            lines.push(format!(
                "  {:<15} {:<12} {:<14} {:>25} {:>25} {:>7}",
                "load", "metric", "unit", "no mesh", "mesh", "ratio"
            ));
        }
        let load = if shown == (row.path, row.load) {
            ""
        } else {
            row.load
        };
        shown = (row.path, row.load);
        let base = rows
            .iter()
            .find(|other| is_base(other) && place(other) == place(row) && same_metric(other, row));
        lines.push(format!(
            "  {load:<15} {:<12} {:<14} {:>25} {:>25} {:>7}",
            row.metric,
            row.unit,
            base.map_or_else(|| "-".to_owned(), spread),
            spread(row),
            row.ratio_to_no_mesh
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
        ));
    }
    lines
}

fn is_base(row: &Row) -> bool {
    row.path.starts_with("no_mesh")
}

fn place(row: &Row) -> &str {
    let path = row.path;
    path.strip_prefix("no_mesh_")
        .or_else(|| path.strip_prefix("control_"))
        .unwrap_or(path)
}

fn same_metric(one: &Row, other: &Row) -> bool {
    (one.load, one.metric) == (other.load, other.metric)
}

/// The median, the lowest and the highest run.
fn spread(row: &Row) -> String {
    let lowest = row.runs.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = row.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({}..{})", short(row.value), short(lowest), short(highest))
}

/// Three digits that matter, more where the number itself has more.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &'static str, value: f64, ratio: Option<f64>) -> Row {
        Row {
            path,
            load: "stream_64k",
            metric: "throughput",
            unit: "Gbit/s",
            value,
            ratio_to_no_mesh: ratio,
            ratio_interval: None,
            runs: vec![value - 1.0, value, value + 1.0],
        }
    }

    #[test]
    fn a_pair_is_one_line_with_its_own_place() {
        let rows = [
            row("no_mesh_same_node", 20.0, None),
            row("same_node", 10.0, Some(0.5)),
            row("no_mesh_cross_node", 12.0, None),
            row("cross_node", 3.0, Some(0.25)),
        ];
        let lines = lines(&rows);
        assert_eq!(lines.len(), 8, "{lines:#?}");
        assert!(
            lines[3].contains("20.0 (19.0..21.0)") && lines[3].ends_with("0.50"),
            "{}",
            lines[3]
        );
        assert!(lines[7].contains("12.0 (11.0..13.0)") && lines[7].contains("3.00 (2.00..4.00)"));
    }
}
