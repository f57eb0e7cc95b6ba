//! A node agent under test: started in its node's namespace and cgroup, stopped or killed, asked, read.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::http::{self, Answer};
use crate::manifests::Manifests;
use crate::net::{Net, Node};
use crate::process::{Process, json_lines};
use crate::{programs, wait};

/// Health and metrics, inside the node's namespace.
const METRICS: &str = "127.0.0.1:15020";
/// From the start of the program to `/readyz`.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// From SIGTERM to the end of the program.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Which build of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// The present one.
    #[default]
    Present,
    /// As a next one may be: with other layouts of maps (tests/next).
    Next,
}

/// The agent of one node.
#[derive(Debug)]
pub struct Agent {
    /// What is started next.
    pub version: Version,
    node: Node,
    args: Vec<String>,
    admin: PathBuf,
    access_log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// Starts the agent of `node` and waits until it is ready.
    ///
    /// # Errors
    /// It is not built, ends, or is not ready in time; the message holds its last words.
    pub fn start(net: &Net, node: u8) -> Result<Self> {
        let mut agent = Self::prepare(net, node)?;
        agent.begin(net)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// An agent that is not running yet.
    ///
    /// # Errors
    /// There is no such node, or its directories cannot be made.
    pub fn prepare(net: &Net, node: u8) -> Result<Self> {
        let node = net.node(node)?.clone();
        let dir = net.run().dir();
        let pins = dir.join("bpf").join(&node.name);
        fs::create_dir_all(&pins).with_context(|| format!("make {}", pins.display()))?;
        let admin = dir.join(format!("{}.sock", node.name));
        let access_log = dir.join("logs").join(format!("{}-access.log", node.name));
        let shown = |path: &Path| path.display().to_string();
        let instance = format!("{}-{}", net.run().id(), node.name);
        let options = [
            ("--node", node.name.clone()),
            ("--instance", instance),
            ("--config-dir", shown(Manifests::of(net).dir())),
            // One directory for both nodes: they share the embedded CA.
            ("--state-dir", shown(&dir.join("ca"))),
            ("--cgroup-root", shown(&node.cgroup)),
            ("--bpffs", shown(&pins)),
            ("--admin-socket", shown(&admin)),
            ("--metrics-address", METRICS.to_owned()),
            ("--trust-domain", "cluster.local".to_owned()),
            ("--access-log", shown(&access_log)),
            ("--access-log-format", "json".to_owned()),
        ];
        let mut args = vec!["run".to_owned()];
        args.extend(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value]),
        );
        Ok(Self {
            version: Version::default(),
            node,
            args,
            admin,
            access_log,
            process: None,
        })
    }

    /// Sets an option of `tramline run` for its next start, in place of the value it has.
    pub fn set(&mut self, option: &str, value: impl Into<String>) {
        match self.args.iter().position(|arg| arg == option) {
            Some(at) => self.args[at + 1] = value.into(),
            None => self.args.extend([option.to_owned(), value.into()]),
        }
    }

    /// Starts the program without waiting; use [`Agent::wait_ready`].
    ///
    /// # Errors
    /// It is not built, or starting is refused.
    pub fn begin(&mut self, net: &Net) -> Result<()> {
        let cgroup = self.node.cgroup.join("agent");
        let program = match self.version {
            Version::Present => programs::agent()?,
            Version::Next => programs::next_agent()?,
        };
        self.process =
            Some(net.start_in(&self.node.netns, &cgroup, &self.node.name, &program, &self.args)?);
        Ok(())
    }

    /// Waits for `/readyz`.
    ///
    /// # Errors
    /// It ends or is not ready in time.
    pub fn wait_ready(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the agent is not running")?;
        let netns = &self.node.netns;
        let address: SocketAddr = METRICS.parse()?;
        let mut last = "no answer".to_owned();
        let ready = wait::until("the agent to be ready", READY_LIMIT, || {
            if !process.is_running()? {
                bail!("the agent ended");
            }
            match http::get(netns, address, "/readyz?verbose") {
                Ok(answer) if answer.status == 200 => return Ok(Some(())),
                Ok(answer) => last = answer.body,
                Err(error) => last = format!("{error:#}"),
            }
            Ok(None)
        });
        ready.with_context(|| format!("agent of {}: {last}\n{}", self.node.name, process.words()))
    }

    /// SIGKILL: what a crash or the OOM killer does.
    ///
    /// # Errors
    /// It is not running.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.signal(Signal::SIGKILL)?;
        process.wait(Duration::from_secs(5)).map(drop)
    }

    /// SIGTERM, and the orderly end that must follow.
    ///
    /// # Errors
    /// It is not running, ends badly or not in time.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the agent is not running")?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait(STOP_LIMIT)?;
        if !status.success() {
            bail!(
                "agent of {} ended with {status}; {}",
                self.node.name,
                process.words()
            );
        }
        Ok(())
    }

    /// Starts it again, with the same directories, and waits until it is ready.
    ///
    /// # Errors
    /// See [`Agent::start`].
    pub fn restart(&mut self, net: &Net) -> Result<()> {
        self.begin(net)?;
        self.wait_ready()
    }

    /// Starts a successor beside the agent, as an upgrade does, waits until it serves, and returns the old process,
    /// which still carries its connections.
    ///
    /// # Errors
    /// See [`Agent::start`].
    pub fn succeed(&mut self, net: &Net, drain: Duration) -> Result<Process> {
        let old = self.begin_successor(net, drain)?;
        let serving = self.wait_serving();
        serving.with_context(|| format!("the old one: {}", old.words()))?;
        Ok(old)
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// It is not built, or starting is refused.
    pub fn begin_successor(&mut self, net: &Net, drain: Duration) -> Result<Process> {
        let old = self.process.take().context("the agent is not running")?;
        let plain = self.args.len();
        self.args.push("--takeover".to_owned());
        self.args.push(format!("--drain-timeout={}s", drain.as_secs()));
        let begun = self.begin(net);
        self.args.truncate(plain);
        begun?;
        Ok(old)
    }

    /// Waits until it is this process that answers and is ready.
    ///
    /// # Errors
    /// Not so in time, or it ends.
    pub fn wait_serving(&mut self) -> Result<()> {
        let pid = self.process.as_ref().map(Process::pid);
        let mut last = "no answer".to_owned();
        let serving = wait::until("the agent to serve", READY_LIMIT, || {
            match self.cli("status") {
                Ok(status) if status["pid"].as_u64() == pid.map(u64::from) && status["ready"] == true => {
                    return Ok(Some(()));
                }
                Ok(status) => last = status.to_string(),
                Err(error) => last = format!("{error:#}"),
            }
            if let Some(process) = &mut self.process
                && !process.is_running()?
            {
                bail!("it ended");
            }
            Ok(None)
        });
        serving.with_context(|| format!("agent of {}: {last}\n{}", self.node.name, self.words()))
    }

    /// Puts a process that was succeeded back in the place of its successor, which is returned.
    ///
    /// # Errors
    /// It is not running.
    pub fn go_back_to(&mut self, old: Process) -> Result<Process> {
        self.process.replace(old).context("the agent is not running")
    }

    /// The node it serves.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The process, while it runs.
    #[must_use]
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The socket for `--admin-socket`.
    #[must_use]
    pub fn admin_socket(&self) -> &Path {
        &self.admin
    }

    /// The command line after `tramline`.
    #[must_use]
    pub fn args(&self) -> &[String] {
        &self.args
    }

    /// Moves the access log away, as log rotation does, sends SIGHUP, and returns what was in it.
    ///
    /// # Errors
    /// There is none, or the agent is not running.
    pub fn rotate_access_log(&self) -> Result<Vec<Value>> {
        let moved = self.access_log.with_extension("log.1");
        fs::rename(&self.access_log, &moved)?;
        let process = self.process.as_ref().context("the agent is not running")?;
        process.signal(Signal::SIGHUP)?;
        json_lines(&fs::read_to_string(moved)?, |_| true)
    }

    /// The access log so far; empty before the first line.
    ///
    /// # Errors
    /// A whole line is not JSON.
    pub fn access_log(&self) -> Result<Vec<Value>> {
        self.access_log_with(|_| true)
    }

    /// Those of its lines, as they are written, that are `wanted`: the others are not parsed.
    ///
    /// # Errors
    /// A whole line of these is not JSON.
    pub fn access_log_with(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Value>> {
        match fs::read_to_string(&self.access_log) {
            Ok(text) => json_lines(&text, wanted),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a line of the access log.
    ///
    /// # Errors
    /// No such line within `limit`; the message holds the last ones there are.
    pub fn wait_access(&self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = wait::until("an access-log line", limit, || {
            Ok(self.access_log()?.into_iter().find(&wanted))
        });
        found.with_context(|| {
            let lines = self.access_log().unwrap_or_default();
            let last: Vec<String> = lines.iter().rev().take(5).map(Value::to_string).collect();
            format!("agent of {}, last lines:\n{}", self.node.name, last.join("\n"))
        })
    }

    /// `GET path` on its metrics address.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        http::get(&self.node.netns, METRICS.parse()?, path)
    }

    /// The sum of all samples of metric `name` whose labels hold every one of `labels` (`key="value"`).
    ///
    /// # Errors
    /// It does not answer.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        Ok(sum(&self.get("/metrics")?.body, name, labels))
    }

    /// Runs `tramline COMMAND --admin-socket ... -o json`.
    ///
    /// # Errors
    /// The command fails or prints no JSON.
    pub fn cli(&self, command: &str) -> Result<Value> {
        match self.ask(command)? {
            (0, answer) => Ok(answer),
            (code, answer) => bail!("tramline {command}: exit code {code}: {answer}"),
        }
    }

    /// The same where the answer may be a no: its exit code, 0 or 3, with the answer.
    ///
    /// # Errors
    /// The command fails or prints no JSON.
    pub fn ask(&self, command: &str) -> Result<(i32, Value)> {
        let output = Command::new(programs::agent()?)
            .args(command.split_whitespace())
            .arg("--admin-socket")
            .arg(&self.admin)
            .args(["-o", "json"])
            .stdin(Stdio::null())
            .output()?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        match output.status.code() {
            Some(code @ (0 | 3)) => {
                let answer = serde_json::from_str(&out)
                    .with_context(|| format!("tramline {command} printed no JSON: {out} {err}"))?;
                Ok((code, answer))
            }
            _ => bail!("tramline {command}: {}: {err}", output.status),
        }
    }

    /// Runs `tramline COMMAND --admin-socket ...` and returns what it prints for people.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn page(&self, command: &str) -> Result<String> {
        let output = Command::new(programs::agent()?)
            .args(command.split_whitespace())
            .arg("--admin-socket")
            .arg(&self.admin)
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the admin socket answers, without a process for it: for who asks often.
    ///
    /// # Errors
    /// It does not answer, or not in JSON.
    pub fn asked(&self, path: &str) -> Result<Value> {
        let answer = http::get_unix(&self.admin, path)?;
        serde_json::from_str(&answer.body).with_context(|| format!("{path} is no JSON"))
    }

    /// The generation of the configuration that it and the kernel follow: what `tramline status` says.
    ///
    /// # Errors
    /// It does not answer.
    pub fn generation(&self) -> Result<u64> {
        let status = self.asked("/status")?;
        status["generation"]
            .as_u64()
            .with_context(|| format!("no generation in {status}"))
    }

    /// Has it begin its access log anew and removes what was in it.
    ///
    /// # Errors
    /// There is none, or the agent is not running.
    pub fn discard_access_log(&self) -> Result<()> {
        fs::remove_file(&self.access_log)?;
        let process = self.process.as_ref().context("the agent is not running")?;
        process.signal(Signal::SIGHUP)
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// It is not running.
    pub fn descriptors(&self) -> Result<usize> {
        let pid = self.process.as_ref().context("the agent is not running")?.pid();
        Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
    }

    /// Its last words, for messages.
    #[must_use]
    pub fn words(&self) -> String {
        self.process.as_ref().map(Process::words).unwrap_or_default()
    }

    /// Lets it run on when this value is dropped.
    pub fn detach(self) {
        if let Some(process) = self.process {
            process.detach();
        }
    }
}

/// Sums samples of the Prometheus text format.
fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, set) = series.split_once('{').unwrap_or((series, ""));
        (found == name && labels.iter().all(|label| set.contains(label)))
            .then(|| value.parse::<f64>().ok())?
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        let text = "# TYPE opened counter\nopened_total{a=\"x\",b=\"1\"} 2\nopened_total{a=\"x\",b=\"2\"} 3\n\
                    opened_total{a=\"y\"} 10\nopened_total_other 7\n";
        assert!((sum(text, "opened_total", &["a=\"x\""]) - 5.0).abs() < f64::EPSILON);
        assert!((sum(text, "opened_total", &[]) - 15.0).abs() < f64::EPSILON);
    }
}
