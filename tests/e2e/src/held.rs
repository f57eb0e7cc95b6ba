//! One live connection.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_harness::net::{Net, Pod};
use tramline_harness::process::Process;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(10);
/// For one answer of a server that has nothing else to do.
const ANSWER: Duration = Duration::from_secs(3);

/// A connection to an echo server that a pod holds open.
#[derive(Debug)]
pub struct Held {
    process: Process,
    stdin: ChildStdin,
    asked: usize,
}

impl Held {
    /// Opens it.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn new(net: &Net, pod: &Pod, to: SocketAddr) -> Result<Self> {
        let patience = wait::stretched(ANSWER).as_millis();
        let args = format!("hold --to {to} --count 1 --timeout-ms {patience}");
        let mut process = net.app(pod, &args)?;
        let event = process.wait_event("held", SOON)?;
        ensure!(event["alive"] == 1, "{event}");
        let stdin = process.stdin().context("no stdin")?;
        Ok(Self {
            process,
            stdin,
            asked: 0,
        })
    }

    /// Whether it still answers.
    ///
    /// # Errors
    /// The application that holds it does not.
    pub fn is_alive(&mut self) -> Result<bool> {
        writeln!(self.stdin, "again")?;
        self.asked += 1;
        let answer = wait::until("the connection to be checked", SOON, || {
            let written = self.process.stdout()?;
            let checks = written.lines().filter(|line| line.contains("\"checked\""));
            Ok(checks.skip(self.asked - 1).map(str::to_owned).next())
        })?;
        Ok(serde_json::from_str::<Value>(&answer)?["alive"] == 1)
    }

    /// Waits until it is dead.
    ///
    /// # Errors
    /// It lives on.
    pub fn wait_dead(&mut self, what: &str) -> Result<()> {
        wait::until(what, SOON, || Ok((!self.is_alive()?).then_some(())))
    }
}
