//! Everything xtask prints: data to stdout, talk to stderr.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool's output, in one place"
)]

/// A line of the command's result, to stdout.
pub(crate) fn result(line: impl AsRef<str>) {
    println!("{}", line.as_ref());
}

/// What the command is doing, to stderr.
pub(crate) fn step(line: impl AsRef<str>) {
    eprintln!("==> {}", line.as_ref());
}

/// A further line under a step, to stderr.
pub(crate) fn note(line: impl AsRef<str>) {
    eprintln!("    {}", line.as_ref());
}

/// One line of a child process, passed on as it came.
pub(crate) fn passed_on(line: &str) {
    eprintln!("{line}");
}

/// The error that ends the command, with its causes.
pub(crate) fn failure(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
