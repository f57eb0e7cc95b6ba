//! Who is where: four pairs of pods, a client and a server each, and the agents.

use std::collections::HashMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tramline_harness::mesh::Mesh;
use tramline_harness::net::{Net, Pod};
use tramline_harness::process::Process;
use tramline_harness::wait;

use crate::cpu::{Cpu, Meter};
use crate::load::{Answer, Load, Outcome, Request};
use crate::pair::{Place, Side};
use crate::ports::Ports;
use crate::screen;

/// The longest that one load may take.
const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// Between two loads: the end of the first must not be on the account of the second.
const PAUSE: Duration = Duration::from_millis(50);
/// For the agents to have counted the last connection.
const COUNTED: Duration = Duration::from_secs(5);
/// Connections that the source's agent saw opened (docs/METRICS.md).
const OPENED: &str = "istio_tcp_connections_opened_total";
/// What the kernel's programs count (docs/METRICS.md).
const KERNEL_EVENTS: &str = "tramline_ebpf_events_total";

/// Nodes, pods, agents and the processes in them.
pub(crate) struct Stage {
    // Before the mesh: they end first.
    plain: Pods,
    meshed: Pods,
    meter: Meter,
    mesh: Mesh,
    carried: u64,
}

/// What one load on one side of one place came to.
pub(crate) struct Run {
    pub(crate) outcome: Outcome,
    /// Processor time from before the load to after it.
    pub(crate) cpu: Cpu,
    /// Connections that the kernel led to the agent of the client's node.
    pub(crate) captured: f64,
}

/// One client and the servers it talks to.
struct Pods {
    client: Client,
    ports: HashMap<Ipv4Addr, Ports>,
    same_node: Ipv4Addr,
    cross_node: Ipv4Addr,
    outside: Ipv4Addr,
    _servers: [Process; 2],
}

/// A client process, told what to do by its standard input.
pub(crate) struct Client {
    process: Process,
    input: ChildStdin,
    requests: u32,
}

impl Stage {
    /// Makes everything. Without agents nothing is enrolled: both sides are no mesh.
    pub(crate) fn build(agents: bool) -> Result<Self> {
        screen::progress("two nodes, three pods in the mesh and three outside of it");
        let mut mesh = Mesh::new("bench", 2)?;
        let inside = [mesh.pod(1, "client")?, mesh.pod(1, "near")?, mesh.pod(2, "far")?];
        let outside = [
            mesh.outsider(1, "plain-client")?,
            mesh.outsider(1, "plain-near")?,
            mesh.outsider(2, "plain-far")?,
        ];
        if agents {
            screen::progress("one agent per node");
            mesh.start(&inside.each_ref())?;
        }
        let program = std::env::current_exe().context("find the running program")?;
        Ok(Self {
            plain: Pods::start(&mesh.net, &program, &outside, &outside[1])?,
            meshed: Pods::start(&mesh.net, &program, &inside, &outside[1])?,
            meter: Meter::of(&mesh.net),
            mesh,
            carried: 0,
        })
    }

    /// Puts one load on one side of one place.
    pub(crate) fn measure(&mut self, place: Place, side: Side, load: Load) -> Result<Run> {
        let pods = match side {
            Side::NoMesh => &mut self.plain,
            Side::Mesh => &mut self.meshed,
        };
        let server = match place {
            Place::SameNode => pods.same_node,
            Place::CrossNode => pods.cross_node,
            Place::Outside => pods.outside,
        };
        let ports = pods.ports.entry(server).or_default();
        ports.wait(expected(load));
        let captured = captured(&self.mesh)?;
        std::thread::sleep(PAUSE);
        let before = self.meter.read()?;
        let outcome = pods.client.perform(server, load).map_err(|error| {
            let words: Vec<String> = self.mesh.agents.iter().map(|agent| agent.words()).collect();
            error.context(words.join("\n"))
        })?;
        let cpu = self.meter.read()?.since(before);
        ports.closed(connections(load, &outcome));
        if side == Side::Mesh {
            self.carried += connections(load, &outcome);
        }
        let captured = self::captured(&self.mesh)? - captured;
        Ok(Run {
            outcome,
            cpu,
            captured,
        })
    }

    /// Makes sure that what is called the mesh was one: the agents must have counted every connection of that side.
    pub(crate) fn verify(&self) -> Result<u64> {
        let Some(agent) = self.mesh.agents.first() else {
            return Ok(0);
        };
        let mut seen = 0.0;
        let counted = wait::until("the agent to have counted every connection", COUNTED, || {
            seen = agent.metric(OPENED, &["reporter=\"source\""])?;
            // Far below 2^52: exact.
            Ok((seen >= self.carried as f64).then_some(self.carried))
        });
        counted.with_context(|| format!("{} connections made, {seen} counted by the agent", self.carried))
    }

    /// Removes everything and says so when something stays.
    pub(crate) fn end(self) -> Result<()> {
        drop((self.plain, self.meshed));
        drop(self.mesh.agents);
        self.mesh.net.end()
    }
}

impl Pods {
    fn start(net: &Net, program: &Path, [client, near, far]: &[Pod; 3], outside: &Pod) -> Result<Self> {
        Ok(Self {
            _servers: [serve(net, program, near)?, serve(net, program, far)?],
            client: Client::start(net, program, client)?,
            ports: HashMap::new(),
            same_node: near.v4,
            cross_node: far.v4,
            outside: outside.v4,
        })
    }
}

pub(crate) fn serve(net: &Net, program: &Path, pod: &Pod) -> Result<Process> {
    let mut process = net.start(pod, program, &["server".to_owned()])?;
    process.wait_event("listening", Duration::from_secs(10))?;
    Ok(process)
}

impl Client {
    pub(crate) fn start(net: &Net, program: &Path, pod: &Pod) -> Result<Self> {
        let mut process = net.start(pod, program, &["client".to_owned()])?;
        let input = process.stdin().context("the client has no standard input")?;
        Ok(Self {
            process,
            input,
            requests: 0,
        })
    }

    pub(crate) fn perform(&mut self, server: Ipv4Addr, load: Load) -> Result<Outcome> {
        self.requests += 1;
        let id = self.requests;
        let mut line = serde_json::to_string(&Request { id, server, load })?;
        line.push('\n');
        self.input
            .write_all(line.as_bytes())
            .context("tell the client what to do")?;
        let answer = self.process.wait_json(LOAD_LIMIT, |line| line["id"] == id)?;
        let answer: Answer = serde_json::from_value(answer)?;
        answer.result.map_err(|reason| anyhow!(reason))
    }
}

/// How many connects of pods of the first node the kernel has led to the agent; none without one.
pub(crate) fn captured(mesh: &Mesh) -> Result<f64> {
    mesh.agents.first().map_or(Ok(0.0), |agent| {
        agent.metric(KERNEL_EVENTS, &["event=\"captured\""])
    })
}

/// How many connections a load will make, the warm-up's included; only those of many count.
fn expected(load: Load) -> u64 {
    match load {
        Load::Connections { count, .. } => count as u64 + 200,
        Load::Stream { .. } | Load::RoundTrips { .. } => 10,
    }
}

/// How many connections a load made, the warm-up's included.
fn connections(load: Load, outcome: &Outcome) -> u64 {
    match load {
        Load::Connections { .. } => outcome.performed,
        Load::Stream { streams, .. } => 1 + streams as u64,
        Load::RoundTrips { .. } => 2,
    }
}
