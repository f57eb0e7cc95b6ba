//! No port of the agent carries a connection for someone who dials it: every source, every port the agent listens on,
//! in every namespace. The one that must answer strangers, 15008, answers TLS and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::agent::Agent;
use tramline_harness::mesh::Mesh;
use tramline_harness::net::{Node, Pod};
use tramline_harness::netns::Netns;
use tramline_harness::programs;

/// What a trampoline would be asked to carry.
const ASK: &str = "GET-/hello-HTTP/1.1";

/// Ports with a listener of the agent in a namespace: `/proc/net/tcp{,6}` (state 0A) and the agent's descriptors.
fn agent_ports(netns: &Netns, agent: &Agent) -> Result<BTreeSet<u16>> {
    let pid = agent.process().context("the agent runs")?.pid();
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        let text = target.display().to_string();
        if let Some(inode) = text.strip_prefix("socket:[").and_then(|t| t.strip_suffix(']')) {
            inodes.insert(inode.to_owned());
        }
    }
    let tables = netns.enter(|| {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        read("tcp") + &read("tcp6")
    })?;
    let listening = tables.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (*state == "0A" && inodes.contains(*inode)).then_some(port)
    });
    Ok(listening.collect())
}

/// Connects from a pod, or from the node outside of all pods.
fn dial(mesh: &Mesh, source: &Source, to: SocketAddr) -> Result<Value> {
    let command = format!("client --to {to} --send {ASK} --timeout-ms 12000 --then shutdown");
    match source {
        Source::Pod(pod) => mesh.net.call_one(pod, &command),
        Source::Node(node) => {
            let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
            let process = mesh.net.start_on_node(node, &programs::testapp()?, &args)?;
            process
                .finish(std::time::Duration::from_secs(60))?
                .pop()
                .context("no output")
        }
    }
}

enum Source {
    Pod(Pod),
    Node(Node),
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.name,
            Self::Node(node) => &node.name,
        }
    }
}

#[test]
fn no_agent_port_is_a_trampoline() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("trampoline", 2)?;
    let pod = mesh.pod(1, "pod")?;
    let other = mesh.pod(1, "other")?;
    let remote = mesh.pod(2, "remote")?;
    let outsider = mesh.outsider(1, "outsider")?;
    mesh.start(&[&pod, &other, &remote])?;
    let server = mesh.net.serve(&pod, "server --port 5000")?;

    let inside = agent_ports(&pod.netns, mesh.agent(1)?)?;
    let node = mesh.net.node(1)?.clone();
    let outside = agent_ports(&node.netns, mesh.agent(1)?)?;
    assert!(
        !inside.is_empty(),
        "the agent listens nowhere in the pod: this test would prove nothing"
    );
    let mut ports: Vec<(SocketAddr, bool)> = Vec::new();
    for port in inside.iter().copied().chain([15_001, 15_006, 15_008]) {
        ports.push((pod.at4(port), false));
        ports.push((pod.at6(port), false));
        ports.push(((Ipv4Addr::LOCALHOST, port).into(), true));
        ports.push(((Ipv6Addr::LOCALHOST, port).into(), true));
    }
    for port in outside {
        let number = u16::from(node.number);
        ports.push(((Ipv4Addr::new(10, 77, node.number, 1), port).into(), false));
        ports.push((
            (
                IpAddr::from(Ipv6Addr::new(0xfd77, number, 0, 0, 0, 0, 0, 1)),
                port,
            )
                .into(),
            false,
        ));
    }
    let sources = [
        Source::Pod(pod),
        Source::Pod(other),
        Source::Pod(remote),
        Source::Pod(outsider),
        Source::Node(node),
    ];
    for source in &sources {
        for (to, own_loopback) in &ports {
            if *own_loopback && source.name() != "pod" {
                continue;
            }
            let line = dial(&mesh, source, *to)?;
            let answered = line["connect"] == "ok" && line["received_bytes"] != 0;
            let from = source.name();
            // A TLS alert (21, then 3) is an answer that carries nothing.
            let alert = line["received"]
                .as_str()
                .is_some_and(|text| text.starts_with('\u{15}'));
            ensure!(!answered || alert, "{from} to {to}: {line}");
            ensure!(line["end"] != "timeout", "{from} to {to} hangs: {line}");
        }
    }
    let words = server.stdout()?;
    ensure!(
        !words.contains(ASK),
        "the application was reached through the agent: {words}"
    );
    for agent in &mesh.agents {
        for line in agent.access_log()? {
            ensure!(
                line["verdict"] != "allow" || line["reason"] != "ok",
                "something was carried: {line}"
            );
        }
    }
    Ok(())
}
