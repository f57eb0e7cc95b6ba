//! A process in a pod or node: its output in files, its end awaited with a limit, killed when dropped.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::netns::Netns;
use crate::programs;
use crate::wait;

/// A running process. Its standard output and error go to files of the run.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    detached: bool,
}

/// Where a process runs and where its words go.
#[derive(Debug)]
pub struct Place<'a> {
    /// The network namespace.
    pub netns: &'a Netns,
    /// The cgroup it joins before its first instruction.
    pub cgroup: &'a Path,
    /// The directory of its output files.
    pub logs: &'a Path,
    /// Unique among the processes of a run.
    pub name: String,
}

impl Process {
    /// Starts `program` with `args` in `place`.
    ///
    /// The test application's `exec` joins the cgroup and then becomes `program`, so the process id stays.
    ///
    /// # Errors
    /// The test application is not built, or starting is refused.
    pub fn start(place: Place<'_>, program: &Path, args: &[String]) -> Result<Self> {
        let out = place.logs.join(format!("{}.out", place.name));
        let err = place.logs.join(format!("{}.err", place.name));
        let mut command = Command::new(programs::testapp()?);
        command
            .arg("exec")
            .arg("--cgroup")
            .arg(place.cgroup)
            .arg("--")
            .arg(program)
            .args(args);
        command.stdin(Stdio::piped());
        command.stdout(File::create(&out).with_context(|| format!("create {}", out.display()))?);
        command.stderr(File::create(&err)?);
        let child = place
            .netns
            .enter(move || command.spawn())?
            .with_context(|| format!("start {}", place.name))?;
        Ok(Self {
            name: place.name,
            child,
            out,
            err,
            detached: false,
        })
    }

    /// The process id, on this machine.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, once; dropping it is the end of input that ends the long-lived test applications.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has written to standard output so far.
    ///
    /// # Errors
    /// The file is gone.
    pub fn stdout(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.out)?).into_owned())
    }

    /// What it has written to standard error so far.
    ///
    /// # Errors
    /// The file is gone.
    pub fn stderr(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.err)?).into_owned())
    }

    /// The whole lines of standard output so far, each a JSON value.
    ///
    /// # Errors
    /// A line is not JSON.
    pub fn json(&self) -> Result<Vec<Value>> {
        json_lines(&self.stdout()?, |_| true).with_context(|| format!("output of {}", self.name))
    }

    /// Waits until a line of output satisfies `wanted`.
    ///
    /// # Errors
    /// No such line within `limit`, or the process ended without one.
    pub fn wait_json(&mut self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let what = format!("a line from {}", self.name);
        let found = wait::until(&what, limit, || {
            let ended = self.child.try_wait()?;
            if let Some(line) = self.json()?.into_iter().find(&wanted) {
                return Ok(Some(line));
            }
            match ended {
                Some(status) => bail!("{} ended with {status}", self.name),
                None => Ok(None),
            }
        });
        found.with_context(|| self.words())
    }

    /// Waits for `{"event": EVENT}`.
    ///
    /// # Errors
    /// See [`Process::wait_json`].
    pub fn wait_event(&mut self, event: &str, limit: Duration) -> Result<Value> {
        self.wait_json(limit, |line| line["event"] == event)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end; one that outlives `limit` is killed.
    ///
    /// # Errors
    /// It was still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        let limit = wait::stretched(limit);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > limit {
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!(
                    "{} still ran after {:.0} s; {}",
                    self.name,
                    limit.as_secs_f64(),
                    self.words()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a good end and returns the lines of its output.
    ///
    /// # Errors
    /// It ended badly or not in time; the message holds its words.
    pub fn finish(mut self, limit: Duration) -> Result<Vec<Value>> {
        let status = self.wait(limit)?;
        if !status.success() {
            let by = status
                .signal()
                .map(|s| format!(" by signal {s}"))
                .unwrap_or_default();
            bail!("{} ended with {status}{by}; {}", self.name, self.words());
        }
        self.json()
    }

    /// Ends its input, waits for the good end that long-lived test applications come to then, and returns the lines of its
    /// output, which is removed: of a process that writes much.
    ///
    /// # Errors
    /// It ended badly or not in time; the message holds its words.
    pub fn finish_and_clear(mut self, limit: Duration) -> Result<Vec<Value>> {
        drop(self.stdin());
        let out = self.out.clone();
        let lines = self.finish(limit)?;
        fs::remove_file(&out)?;
        Ok(lines)
    }

    /// Lets it run on when this value is dropped.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The last words of both outputs, for messages.
    #[must_use]
    pub fn words(&self) -> String {
        let tail = |path: &Path| {
            let text = fs::read(path)
                .map(|b| String::from_utf8_lossy(&b).into_owned())
                .unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(12).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!(
            "last output:\n{}\nlast errors:\n{}",
            tail(&self.out),
            tail(&self.err)
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Parses the lines of JSON that are `wanted`; a last line without its end is not whole yet and is left out.
///
/// # Errors
/// A whole line of these is not JSON.
pub fn json_lines(text: &str, wanted: impl Fn(&str) -> bool) -> Result<Vec<Value>> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole
        .lines()
        .filter(|line| !line.trim().is_empty() && wanted(line));
    lines
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_wanted_is_not_read() {
        let lines = json_lines("nonsense\n{\"a\":1}\n", |line| line.contains('a')).expect("one line of JSON");
        assert_eq!(lines, [serde_json::json!({"a": 1})]);
    }

    #[test]
    fn a_half_written_line_is_not_read() {
        let lines = json_lines("{\"a\":1}\n{\"a\":", |_| true).expect("one whole line");
        assert_eq!(lines.len(), 1);
        assert!(json_lines("nonsense\n", |_| true).is_err());
    }
}
