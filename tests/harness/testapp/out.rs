//! The output: JSON lines on standard output, complaints on standard error.

use std::io::{Write, stderr, stdout};

use anyhow::{Context, Result};
use serde_json::Value;

/// Writes one line, whole.
pub(crate) fn line(value: &Value) -> Result<()> {
    let mut text = value.to_string();
    text.push('\n');
    // One write per line: several tasks and a reader of the growing file never see half of one.
    stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("write to standard output")
}

/// Says why the program fails.
pub(crate) fn complain(error: &anyhow::Error) {
    // Nobody is left to tell when this write fails.
    let _ = writeln!(stderr(), "tramline-testapp: {error:#}");
}
