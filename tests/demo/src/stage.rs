//! The stage: who is where.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::agent::Agent;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;

use crate::screen;

/// The port of helloworld, of its Service too.
pub(crate) const PORT: u16 = 5000;
/// The shortest life that an agent takes.
pub(crate) const CERTIFICATE_LIFE: Duration = Duration::from_secs(10);
/// How long anything may take that should be there at once.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Nodes, pods, agents, applications.
pub(crate) struct Stage {
    /// The applications, to be ended before the mesh.
    pub(crate) servers: Vec<Process>,
    pub(crate) mesh: Mesh,
    /// Enrolled client on node 1.
    pub(crate) sleep: Pod,
    /// Enrolled client on node 2.
    pub(crate) client: Pod,
    /// On node 2, not enrolled.
    pub(crate) intruder: Pod,
    /// On node 1, not enrolled.
    pub(crate) bystander: Pod,
    /// On node 1.
    pub(crate) v1: Pod,
    /// On node 2.
    pub(crate) v2: Pod,
    /// The Service helloworld.
    pub(crate) service: (IpAddr, IpAddr),
}

impl Stage {
    /// Makes everything, with words about it.
    pub(crate) fn build() -> Result<Self> {
        screen::step("node1 and node2: a namespace, a bridge and a cgroup each, a link between");
        let mut mesh = Mesh::new("demo", 2)?;
        screen::step("namespace sample (enrolled): sleep and helloworld-v1 on node1,");
        screen::step("    client and helloworld-v2 on node2, Service helloworld before both");
        let sleep = mesh.pod(1, "sleep")?;
        let client = mesh.pod(2, "client")?;
        let v1 = mesh.pod_as(1, "helloworld-v1", "helloworld", "helloworld")?;
        let v2 = mesh.pod_as(2, "helloworld-v2", "helloworld", "helloworld")?;
        let service = mesh.service("helloworld", 1, PORT, PORT)?;
        screen::step("namespace outside (not enrolled): bystander on node1, intruder on node2");
        let intruder = mesh.outsider(2, "intruder")?;
        let bystander = mesh.outsider(1, "bystander")?;
        let mut servers = Vec::new();
        for (pod, version) in [(&v1, "v1"), (&v2, "v2"), (&bystander, "none")] {
            let name = &pod.name;
            let args = format!("helloworld --forever --version {version} --instance {name} --port {PORT}");
            servers.push(mesh.net.serve(pod, &args)?);
        }
        let life = CERTIFICATE_LIFE.as_secs();
        screen::step("one agent per node; they share the embedded CA's directory,");
        screen::step(&format!(
            "    and their certificates live {life} s, to be seen renewed"
        ));
        mesh.start_with(&[&sleep, &client, &v1, &v2], |agent| {
            agent.set("--certificate-ttl", format!("{life}s"));
            Ok(())
        })?;
        Ok(Self {
            servers,
            mesh,
            sleep,
            client,
            intruder,
            bystander,
            v1,
            v2,
            service,
        })
    }

    /// Removes everything and says so when something stays.
    pub(crate) fn end(self) -> Result<()> {
        drop(self.servers);
        drop(self.mesh.agents);
        self.mesh.net.end()
    }

    /// The Service by IPv4.
    pub(crate) fn service4(&self) -> SocketAddr {
        (self.service.0, PORT).into()
    }

    /// The Service by IPv6.
    pub(crate) fn service6(&self) -> SocketAddr {
        (self.service.1, PORT).into()
    }

    /// Sends requests, each on a connection of its own; reports of all of them, whatever came of it.
    pub(crate) fn try_get(&self, from: &Pod, to: SocketAddr, count: u32, marker: &str) -> Result<Vec<Value>> {
        let args = format!("get http://{to}/hello --count {count} --marker {marker} --timeout-ms 3000");
        self.mesh.net.call(from, &args)
    }

    /// The same where every request must be answered.
    pub(crate) fn get(&self, from: &Pod, to: SocketAddr, count: u32, marker: &str) -> Result<Vec<Value>> {
        let reports = self.try_get(from, to, count, marker)?;
        for report in &reports {
            ensure!(report["status"] == 200, "{} to {to}: {report}", from.name);
        }
        ensure!(
            reports.len() == count as usize,
            "{} answers to {count} requests",
            reports.len()
        );
        Ok(reports)
    }

    /// A change of one manifest, taken by both agents.
    pub(crate) fn strict(&self) -> Result<()> {
        self.mesh
            .change(|config| config.peer_authentication(INSIDE, "STRICT"))
    }

    /// The agent of node 1 or 2.
    pub(crate) fn agent(&self, node: u8) -> Result<&Agent> {
        self.mesh.agent(node)
    }
}

/// A field of a report as text.
pub(crate) fn text<'a>(report: &'a Value, field: &str) -> Result<&'a str> {
    report[field]
        .as_str()
        .with_context(|| format!("no {field} in {report}"))
}

/// The IP of an address in a report.
pub(crate) fn ip(report: &Value, field: &str) -> Result<IpAddr> {
    let address: SocketAddr = text(report, field)?
        .parse()
        .with_context(|| format!("{field} of {report}"))?;
    Ok(address.ip().to_canonical())
}
