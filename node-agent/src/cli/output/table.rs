//! Tables for people.

use super::{View, printable};

/// No column is made narrower than this, nor than its name.
const NARROWEST: usize = 6;
/// Stands for what was cut.
const CUT: char = '…';

/// Rows under the names of their columns.
#[derive(Debug)]
pub(in crate::cli) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(in crate::cli) fn new(header: &[&'static str]) -> Self {
        Self {
            header: header.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as there are columns.
    pub(in crate::cli) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.header.len());
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Columns as wide as their widest cell, two spaces between, nothing after the last. Unless everything is wanted,
    /// the widest columns are cut until the line fits.
    pub(in crate::cli) fn text(&self, view: View) -> String {
        let mut widths: Vec<usize> = self.header.iter().map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if !view.wide {
            self.fit(&mut widths, view.columns);
        }
        let mut text = String::new();
        let mut line = |cells: &[&str]| {
            let padded: Vec<_> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{:width$}", cut(cell, *width)))
                .collect();
            text.push_str(padded.join("  ").trim_end());
            text.push('\n');
        };
        line(&self.header);
        for row in &self.rows {
            line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        text
    }

    fn fit(&self, widths: &mut [usize], columns: usize) {
        let gaps = 2 * widths.len().saturating_sub(1);
        let least = |index: usize| {
            self.header
                .get(index)
                .map_or(NARROWEST, |name| name.chars().count().max(NARROWEST))
        };
        while widths.iter().sum::<usize>() + gaps > columns {
            let widest = widths
                .iter_mut()
                .enumerate()
                .filter(|(index, width)| **width > least(*index))
                .max_by_key(|(_, width)| **width);
            match widest {
                Some((_, width)) => *width -= 1,
                None => return,
            }
        }
    }
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let mut kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    kept.push(CUT);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 2]]) -> Table {
        let mut table = Table::new(&["NAME", "N"]);
        for row in rows {
            table.row(row.map(str::to_owned).to_vec());
        }
        table
    }

    #[test]
    fn columns_align_and_control_characters_do_nothing() {
        assert_eq!(
            table(&[["a", "1"], ["longer\x1b[2J\n", ""]]).text(View::plain(false)),
            "NAME         N\na            1\nlonger\u{fffd}[2J\u{fffd}\n"
        );
    }

    #[test]
    fn a_table_fits_and_a_wide_one_says_everything() {
        let (long, longer) = ("x".repeat(60), "y".repeat(100));
        let table = table(&[[&long, &longer], ["short", "1"]]);
        let narrow = table.text(View::plain(false));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(narrow.contains("xxx…") && narrow.contains("yyy…"), "{narrow}");
        assert!(table.text(View::plain(true)).contains(&longer));
    }

    #[test]
    fn what_cannot_be_made_narrower_is_left_as_it_is() {
        let mut table = Table::new(&["A-VERY-LONG-NAME"; 8]);
        table.row(vec!["v".repeat(20); 8]);
        assert!(
            table
                .text(View::plain(false))
                .starts_with("A-VERY-LONG-NAME  A-VERY")
        );
    }
}
