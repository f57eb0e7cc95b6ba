//! The output: results and JSON lines on standard output, progress and complaints on standard error.

use std::io::{Write, stderr, stdout};

use anyhow::{Context, Result};
use serde::Serialize;

/// A line of the result.
pub(crate) fn line(text: &str) {
    // A reader that went away (`| head`) is no reason to leave namespaces behind.
    let _ = writeln!(stdout().lock(), "{text}");
}

/// What is being done.
pub(crate) fn progress(text: &str) {
    let _ = writeln!(stderr().lock(), "  .. {text}");
}

/// What went wrong.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(stderr().lock(), "tramline-bench: {text}");
}

/// One JSON value as one line, written at once: its reader sees the growing file and never half of a line.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("write to standard output")
}
