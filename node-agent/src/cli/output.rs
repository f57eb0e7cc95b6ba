//! Printing: one value in the format asked for, and colour only where it is wanted.

mod table;

use std::io::{self, IsTerminal as _, Write as _};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::exit::{Exit, Failure};
pub(super) use table::Table;

/// Columns of a table where standard output is no terminal, or a narrower one.
const COLUMNS: usize = 80;

/// The option that every command with an answer has.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub(super) output: Output,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people, within 80 columns or the terminal's width
    Table,
    /// The same with everything that is known, as wide as it gets
    Wide,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

/// How the text for people is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Whether everything shall be shown, whatever the width.
    pub(super) wide: bool,
    /// The columns there are.
    pub(super) columns: usize,
    /// Colours, or none.
    pub(super) colours: Colours,
}

impl View {
    fn of_stdout(wide: bool) -> Self {
        let terminal = io::stdout()
            .is_terminal()
            .then(ratatui::crossterm::terminal::size)
            .and_then(Result::ok)
            .map_or(COLUMNS, |(columns, _)| usize::from(columns));
        Self {
            wide,
            columns: terminal.max(COLUMNS),
            colours: Colours::of_stdout(),
        }
    }

    #[cfg(test)]
    pub(super) fn plain(wide: bool) -> Self {
        Self {
            wide,
            columns: COLUMNS,
            colours: Colours::none(),
        }
    }
}

/// Prints `value` in the format asked for; `text` makes the form for people.
pub(super) fn show<T: Serialize>(
    format: Output,
    value: &T,
    text: impl FnOnce(View) -> String,
) -> Result<(), Failure> {
    match format {
        Output::Table => data(&text(View::of_stdout(false))),
        Output::Wide => data(&text(View::of_stdout(true))),
        Output::Json => json(value),
        Output::Yaml => yaml(value),
    }
}

/// The same for a listing, of which people are told on standard error that it is empty.
pub(super) fn show_list<T: Serialize>(
    format: Output,
    value: &T,
    what: &str,
    list: impl FnOnce(View) -> Table,
) -> Result<(), Failure> {
    let mut empty = false;
    show(format, value, |view| {
        let table = list(view);
        empty = table.is_empty();
        if empty { String::new() } else { table.text(view) }
    })?;
    if empty {
        talk(&format!("there are no {what}"));
    }
    Ok(())
}

/// Writes data to standard output. A reader that closed the pipe (`| head`) is not an error.
pub(super) fn data(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line for people to standard error; there is nobody to tell if that fails.
pub(super) fn talk(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(line));
}

/// Writes `value` as indented JSON.
fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Failure, format!("JSON: {error}")))?;
    data(&(text + "\n"))
}

/// Writes `value` as YAML.
fn yaml(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_norway::to_string(value)
        .map_err(|error| Failure::new(Exit::Failure, format!("YAML: {error}")))?;
    data(&text)
}

/// Nothing that came from elsewhere moves the cursor or colours the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A colour, where standard output is a terminal and `NO_COLOR` (<https://no-color.org>) is not set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Colours(bool);

impl Colours {
    pub(super) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(io::stdout().is_terminal() && !unwanted)
    }

    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(false)
    }

    /// Whether there are any.
    pub(super) fn wanted(self) -> bool {
        self.0
    }

    pub(super) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A size for people.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count}B")
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

/// An age as kubectl writes it: `12s`, `5m`, `3h`, `2d`.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
