//! A net with its configuration and the agents of its nodes: what a test or the demo starts from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::agent::Agent;
use crate::manifests::{Manifests, Service};
use crate::net::{Net, Pod};
use crate::wait;

/// The enrolled namespace.
pub const INSIDE: &str = "sample";
/// The namespace that is not enrolled.
pub const OUTSIDE: &str = "outside";
/// From a change of the configuration to its use.
const SETTLE: Duration = Duration::from_secs(15);

/// Nodes, pods, configuration, agents. Dropping it removes all of it.
#[derive(Debug)]
pub struct Mesh {
    /// The agents, one per node, once started. Before the net: they end first.
    pub agents: Vec<Agent>,
    /// The configuration directory.
    pub config: Manifests,
    /// Nodes and pods.
    pub net: Net,
}

impl Mesh {
    /// Nodes without pods, the two namespaces declared, no agent running.
    ///
    /// # Errors
    /// See [`Net::new`].
    pub fn new(kind: &str, nodes: u8) -> Result<Self> {
        let net = Net::new(kind, nodes)?;
        let config = Manifests::of(&net);
        config.namespace(INSIDE, true)?;
        config.namespace(OUTSIDE, false)?;
        Ok(Self {
            agents: Vec::new(),
            config,
            net,
        })
    }

    /// A pod of the mesh; its service account and its label `app` are its name.
    ///
    /// # Errors
    /// See [`Net::pod`].
    pub fn pod(&mut self, node: u8, name: &str) -> Result<Pod> {
        self.pod_as(node, name, name, name)
    }

    /// A pod of the mesh.
    ///
    /// # Errors
    /// See [`Net::pod`].
    pub fn pod_as(&mut self, node: u8, name: &str, service_account: &str, app: &str) -> Result<Pod> {
        let pod = self.net.pod(node, name)?;
        self.config.pod(&pod, INSIDE, service_account, app)?;
        Ok(pod)
    }

    /// A pod that is not enrolled.
    ///
    /// # Errors
    /// See [`Net::pod`].
    pub fn outsider(&mut self, node: u8, name: &str) -> Result<Pod> {
        let pod = self.net.pod(node, name)?;
        self.config.pod(&pod, OUTSIDE, name, name)?;
        Ok(pod)
    }

    /// A Service before the pods with label `app`; returns its addresses.
    ///
    /// # Errors
    /// The manifest cannot be written.
    pub fn service(&self, name: &str, number: u8, port: u16, target: u16) -> Result<(IpAddr, IpAddr)> {
        let v4 = IpAddr::from(Ipv4Addr::new(10, 96, 77, number));
        let v6 = IpAddr::from(Ipv6Addr::new(0xfd96, 0x77, 0, 0, 0, 0, 0, u16::from(number)));
        self.config.service(&Service {
            name,
            namespace: INSIDE,
            vips: &[v4, v6],
            ports: &[(port, target)],
            app: name,
        })?;
        Ok((v4, v6))
    }

    /// Starts the agents, one after the other, and waits until `pods` are enrolled.
    ///
    /// # Errors
    /// An agent does not get ready, or a pod is not enrolled in time.
    pub fn start(&mut self, pods: &[&Pod]) -> Result<()> {
        self.start_with(pods, |_| Ok(()))
    }

    /// The same with agents that are `prepared` in another way.
    ///
    /// # Errors
    /// See [`Mesh::start`].
    pub fn start_with(&mut self, pods: &[&Pod], prepared: impl Fn(&mut Agent) -> Result<()>) -> Result<()> {
        for number in 1..=self.net.nodes().len() {
            let mut agent = Agent::prepare(&self.net, u8::try_from(number)?)?;
            prepared(&mut agent)?;
            agent.restart(&self.net)?;
            self.agents.push(agent);
        }
        pods.iter().try_for_each(|pod| self.wait_enrolled(pod))
    }

    /// Waits until the pod's agent has enrolled it and every agent knows it.
    ///
    /// # Errors
    /// Not so in time; the message holds what the agent says instead.
    pub fn wait_enrolled(&self, pod: &Pod) -> Result<()> {
        for agent in &self.agents {
            let local = agent.node().name == pod.node;
            let mut last = Value::Null;
            let found = wait::until("a pod to be enrolled", SETTLE, || {
                let list = agent.cli("workloads")?;
                let row = rows(&list).into_iter().find(|row| row["uid"] == pod.uid.as_str());
                last = row.unwrap_or_default();
                let settled = last["state"] == "enrolled" || (!local && !last.is_null());
                Ok(settled.then_some(()))
            });
            found.with_context(|| {
                format!(
                    "{} says of {}: {last}; {}",
                    agent.node().name,
                    pod.name,
                    agent.words()
                )
            })?;
        }
        Ok(())
    }

    /// Changes one manifest and waits until every agent uses it.
    ///
    /// # Errors
    /// `change` fails, or an agent does not take it in time.
    pub fn change(&self, change: impl FnOnce(&Manifests) -> Result<()>) -> Result<()> {
        let before = self.generations()?;
        change(&self.config)?;
        wait::until("the agents to take the change", SETTLE, || {
            let now = self.generations()?;
            Ok(now
                .iter()
                .zip(&before)
                .all(|(now, before)| now > before)
                .then_some(()))
        })
    }

    /// The generation that each agent says it follows.
    ///
    /// # Errors
    /// One does not answer.
    pub fn generations(&self) -> Result<Vec<u64>> {
        self.agents.iter().map(Agent::generation).collect()
    }

    /// The agent of a node, counted from 1.
    ///
    /// # Errors
    /// It is not started.
    pub fn agent(&self, node: u8) -> Result<&Agent> {
        self.agents
            .get(usize::from(node) - 1)
            .with_context(|| format!("no agent on node {node}"))
    }

    /// The agent of a pod's node.
    ///
    /// # Errors
    /// It is not started.
    pub fn agent_of(&self, pod: &Pod) -> Result<&Agent> {
        self.agents
            .iter()
            .find(|a| a.node().name == pod.node)
            .context("no agent on that node")
    }
}

/// A list, bare or under the only key that holds one.
fn rows(value: &Value) -> Vec<Value> {
    let list = match value {
        Value::Object(fields) => fields.values().find_map(Value::as_array),
        other => other.as_array(),
    };
    list.cloned().unwrap_or_default()
}

/// The SPIFFE identity of a service account of the enrolled namespace.
#[must_use]
pub fn identity(service_account: &str) -> String {
    format!("spiffe://cluster.local/ns/{INSIDE}/sa/{service_account}")
}

/// The same as an `AuthorizationPolicy` names it.
#[must_use]
pub fn principal(service_account: &str) -> String {
    format!("cluster.local/ns/{INSIDE}/sa/{service_account}")
}
