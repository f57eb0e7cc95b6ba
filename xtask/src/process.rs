//! Child processes: said before they run, and their failure turned into an error that names the command.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::report;

/// Shows the command, runs it with inherited output, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    report::note(format!("$ {shown}"));
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// The command's stdout; its stderr is in the error if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` failed: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
}

/// Runs the command, passes every line of its output on as it comes, and shows each to `see` too. True if it succeeded.
pub(crate) fn watched(command: &mut Command, see: impl FnMut(&str)) -> Result<bool> {
    watched_as("", command, see)
}

/// The same with `tag` before each line that is passed on: for one of several that run at a time.
pub(crate) fn watched_as(tag: &str, command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    let shown = shown(command);
    report::note(format!("$ {shown}"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let (lines, seen) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|pipe| forward(pipe, lines.clone())),
        child.stderr.take().map(|pipe| forward(pipe, lines.clone())),
    ];
    drop(lines);
    for line in seen {
        report::passed_on(&format!("{tag}{line}"));
        see(&line);
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    for reader in readers.into_iter().flatten() {
        // A reader that panicked has lost output, not the exit status, which is what decides.
        let _ = reader.join();
    }
    Ok(status.success())
}

/// True if `program` is found on PATH or in the sbin directories that a plain user's PATH leaves out.
pub(crate) fn exists(program: &str) -> bool {
    find(program).is_some()
}

/// Where `program` is, looked for as [`exists`] does.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&path)
        .chain(usual)
        .map(|directory| directory.join(program));
    candidates.find(|path| path.is_file())
}

/// True if this process is root.
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // /proc/self belongs to the effective user of the process that looks.
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn forward(pipe: impl Read + Send + 'static, lines: mpsc::Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            bytes.clear();
            if lines.send(line).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it_and_carries_its_stderr() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sh -c"), "{error}");
        assert!(error.contains("why"), "{error}");
    }

    #[test]
    fn both_streams_are_watched() {
        let mut lines = Vec::new();
        let ok = watched(
            Command::new("sh").args(["-c", "echo out; echo err >&2"]),
            |line| lines.push(line.to_owned()),
        )
        .unwrap();
        lines.sort();
        assert!(ok);
        assert_eq!(lines, ["err", "out"]);
    }

    #[test]
    fn programs_are_looked_up() {
        assert!(exists("sh"));
        assert!(!exists("no-such-program-of-tramline"));
    }
}
