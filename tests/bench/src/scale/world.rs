//! One node with a client and a server in the mesh and two pods outside of it, and everything else made up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tramline_harness::agent::Agent;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

use super::entries::Maps;
use super::made::Written;
use super::{Row, Size, memory};
use crate::load::Load;
use crate::ports::Ports;
use crate::screen;
use crate::stage::{Client, captured, serve};

/// For an agent to read a hundred thousand workloads and enrol its pods.
const START: Duration = Duration::from_secs(90);
/// For a change to be acknowledged.
const CHANGE: Duration = Duration::from_secs(60);
/// For a verdict to be left after a change.
const VERDICT: Duration = Duration::from_secs(10);
/// Connections from the client to the server in one round, at most: two loads with their warm-up, and a few that wait for the
/// verdict.
const PER_ROUND: u64 = 800;
/// The client's service account and the server's label.
const CLIENT: &str = "client";
const SERVER: &str = "server";

pub(super) struct World {
    // Before the mesh: they end first.
    meshed: Client,
    plain: Client,
    _servers: [Process; 2],
    server: Pod,
    plain_server: Pod,
    client: Pod,
    mesh: Mesh,
    written: Written,
    filled: u32,
    changes: u16,
    connections: usize,
    ports: Ports,
}

/// What was measured at one size, run by run.
#[derive(Default)]
pub(super) struct Figures {
    no_mesh: Vec<f64>,
    kernel: Vec<f64>,
    agent: Vec<f64>,
    update: Vec<f64>,
    resident: Vec<f64>,
    resident_after: Vec<f64>,
    maps: Vec<f64>,
    start: Vec<f64>,
}

impl Figures {
    /// As rows of one size of one axis.
    pub(super) fn rows(&self, case: &'static str, n: u32) -> Result<Vec<Row>> {
        [
            ("connect_no_mesh_p50", "us", &self.no_mesh),
            ("connect_kernel_p50", "us", &self.kernel),
            ("connect_agent_p50", "us", &self.agent),
            ("update", "ms", &self.update),
            ("agent_start", "ms", &self.start),
            ("agent_resident", "MiB", &self.resident),
            ("agent_resident_after", "MiB", &self.resident_after),
            ("kernel_maps", "MiB", &self.maps),
        ]
        .into_iter()
        .map(|(metric, unit, runs)| Row::new(case, n, metric, unit, runs.clone()))
        .collect()
    }
}

impl World {
    pub(super) fn build(quick: bool) -> Result<Self> {
        screen::progress("one node, two pods in the mesh and two outside of it");
        let mut mesh = Mesh::new("scale", 1)?;
        let client = mesh.pod(1, CLIENT)?;
        let server = mesh.pod(1, SERVER)?;
        let plain_client = mesh.outsider(1, "plain-client")?;
        let plain_server = mesh.outsider(1, "plain-server")?;
        let program = std::env::current_exe().context("find the running program")?;
        Ok(Self {
            _servers: [
                serve(&mesh.net, &program, &server)?,
                serve(&mesh.net, &program, &plain_server)?,
            ],
            meshed: Client::start(&mesh.net, &program, &client)?,
            plain: Client::start(&mesh.net, &program, &plain_client)?,
            server,
            plain_server,
            client,
            mesh,
            written: Written::default(),
            filled: 0,
            changes: 0,
            connections: if quick { 40 } else { 250 },
            ports: Ports::default(),
        })
    }

    /// Brings everything to a size and measures there, with an agent that has seen no other size.
    pub(super) fn measure(&mut self, size: Size, rounds: u32) -> Result<Figures> {
        let mut figures = Figures::default();
        self.written
            .change(&self.mesh.config, [SERVER, CLIENT], size.policies, size.workloads)?;
        figures.start.push(self.start_agent()?);
        self.fill(size.pods)?;
        let pid = self.pid()?;
        figures.resident.push(memory::resident(pid)?);
        for _ in 0..rounds {
            figures.update.push(self.change()?);
            self.wait_verdict()?;
            self.ports.wait(PER_ROUND);
            let load = self.load(false);
            figures
                .no_mesh
                .push(latency(&mut self.plain, &self.plain_server, load)?);
            figures.kernel.push(self.meshed(false)?);
            figures.agent.push(self.meshed(true)?);
            self.ports.closed(PER_ROUND);
        }
        figures.resident_after.push(memory::resident(pid)?);
        figures.maps.push(memory::maps(pid)?);
        Ok(figures)
    }

    /// Removes everything and says so when something stays.
    pub(super) fn end(self) -> Result<()> {
        drop((self.plain, self.meshed, self._servers));
        drop(self.mesh.agents);
        self.mesh.net.end()
    }

    /// Ends the agent that runs and starts another; milliseconds until it serves.
    fn start_agent(&mut self) -> Result<f64> {
        let mut agent = match self.mesh.agents.pop() {
            Some(mut agent) => {
                agent.stop()?;
                agent
            }
            None => Agent::prepare(&self.mesh.net, 1)?,
        };
        let begin = Instant::now();
        agent.begin(&self.mesh.net)?;
        let mut last = Value::Null;
        let ready = wait::until("the agent to be ready", START, || {
            last = agent.cli("status").unwrap_or_default();
            Ok((last["ready"] == true && last["generation"].as_u64() >= Some(1)).then_some(()))
        });
        let took = begin.elapsed();
        ready.with_context(|| format!("it says {last}\n{}", agent.words()))?;
        self.mesh.agents.push(agent);
        for pod in [&self.client, &self.server] {
            self.mesh.wait_enrolled(pod)?;
        }
        Ok(milliseconds(took))
    }

    fn fill(&mut self, pods: u32) -> Result<()> {
        ensure!(
            pods >= self.filled,
            "entries are only added: {pods} after {}",
            self.filled
        );
        let agent = self.mesh.agent(1)?;
        let bpffs = self.mesh.net.run().dir().join("bpf").join(&agent.node().name);
        Maps::of(&bpffs)?.fill(self.filled, pods)?;
        self.filled = pods;
        Ok(())
    }

    /// Changes a policy of the server, and with it one of its rows in the kernel; milliseconds from the new file being in its
    /// place to the acknowledgement.
    fn change(&mut self) -> Result<f64> {
        self.changes += 1;
        let port = 10_000 + self.changes;
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: changing\n  \
             namespace: {INSIDE}\nspec:\n  selector:\n    matchLabels:\n      app: {SERVER}\n  action: DENY\n  \
             rules:\n  - to:\n    - operation:\n        ports: [\"{port}\"]\n"
        );
        let before = self.acknowledged()?;
        self.mesh.config.write("changing", &text)?;
        let begin = Instant::now();
        while self.acknowledged()? == before {
            if begin.elapsed() > CHANGE {
                bail!("a change was not acknowledged within {} s", CHANGE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(milliseconds(begin.elapsed()))
    }

    /// How many configurations the agent has put in force, by its log: each question to its admin socket would have it walk
    /// the maps that are measured.
    fn acknowledged(&self) -> Result<usize> {
        let process = self.mesh.agent(1)?.process();
        let log = process.context("the agent does not run")?.stderr()?;
        Ok(log.matches("configuration in force").count())
    }

    /// Dials until the kernel lets a connection pass by itself again.
    fn wait_verdict(&mut self) -> Result<()> {
        wait::until("the kernel to let connections pass", VERDICT, || {
            let before = captured(&self.mesh)?;
            let load = Load::Connections {
                count: 1,
                concurrent: 1,
                marked: false,
            };
            self.meshed.perform(self.server.v4, load)?;
            Ok((captured(&self.mesh)? <= before).then_some(()))
        })
    }

    /// Connections in the mesh, by the kernel's verdict or each by the agent; those that it was must be.
    fn meshed(&mut self, by_agent: bool) -> Result<f64> {
        let before = captured(&self.mesh)?;
        let load = self.load(by_agent);
        let latency = latency(&mut self.meshed, &self.server, load)?;
        let captured = captured(&self.mesh)? - before;
        let made = self.connections as f64;
        if by_agent {
            ensure!(captured >= made, "{captured} of {made} were the agent's");
        } else {
            ensure!(captured <= 0.02 * made, "{captured} of {made} were the agent's");
        }
        Ok(latency)
    }

    fn load(&self, by_agent: bool) -> Load {
        Load::Connections {
            count: self.connections,
            concurrent: 1,
            marked: by_agent,
        }
    }

    fn pid(&self) -> Result<u32> {
        let process = self.mesh.agent(1)?.process();
        Ok(process.context("the agent does not run")?.pid())
    }
}

fn latency(client: &mut Client, server: &Pod, load: Load) -> Result<f64> {
    let outcome = client.perform(server.v4, load)?;
    Ok(outcome.latency.context("no connection was made")?.p50)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
