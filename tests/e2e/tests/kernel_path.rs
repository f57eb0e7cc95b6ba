//! What goes from socket to socket once it was decided: it is recorded like everything else, follows every change of the
//! configuration, and goes on without an agent.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tramline_e2e::held::Held;
use tramline_harness::mesh::{INSIDE, Mesh, OUTSIDE, identity, principal};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(10);

struct Stage {
    mesh: Mesh,
    client: Pod,
    server: Pod,
    outsider: Pod,
    _servers: [Process; 2],
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 1)?;
        let client = mesh.pod(1, "client")?;
        let server = mesh.pod(1, "server")?;
        let outsider = mesh.outsider(1, "outsider")?;
        mesh.start(&[&client, &server])?;
        let servers = [
            mesh.net.serve(&server, "server --port 5000")?,
            mesh.net.serve(&outsider, "server --port 5000")?,
        ];
        Ok(Self {
            mesh,
            client,
            server,
            outsider,
            _servers: servers,
        })
    }

    fn event(&self, name: &str) -> Result<f64> {
        let label = format!("event=\"{name}\"");
        self.mesh
            .agent(1)?
            .metric("tramline_ebpf_events_total", &[&label])
    }

    /// Dials until the kernel lets a connection pass by itself.
    fn wait_passed(&self, to: SocketAddr, event: &str) -> Result<()> {
        wait::until(
            &format!("the kernel to let a connection to {to} pass"),
            SOON,
            || {
                let before = self.event(event)?;
                self.call(to, 100)?;
                Ok((self.event(event)? > before).then_some(()))
            },
        )
    }

    fn call(&self, to: SocketAddr, bytes: u64) -> Result<Value> {
        let args = format!("client --to {to} --send-bytes {bytes} --timeout-ms 3000");
        self.mesh.net.call_one(&self.client, &args)
    }

    fn hold(&self, to: SocketAddr) -> Result<Held> {
        Held::new(&self.mesh.net, &self.client, to)
    }
}

#[test]
fn between_pods_of_a_node() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_direct")?;
    let mesh = &stage.mesh;
    // Plaintext from anybody else is refused: what passes does so by identity.
    mesh.change(|config| config.peer_authentication(INSIDE, "STRICT"))?;
    for to in [stage.server.at4(5000), stage.server.at6(5000)] {
        stage.wait_passed(to, "passed_direct")?;
        let report = stage.call(to, 60_000)?;
        ensure!(
            report["received_bytes"] == 60_000 && report["end"] == "eof",
            "{report}"
        );
        for direction in ["outbound", "inbound"] {
            let line = mesh.agent(1)?.wait_access(SOON, |line| {
                line["direction"] == direction
                    && line["dst.addr"] == to.to_string()
                    && line["src.addr"] == report["local"]
            })?;
            ensure!(
                line["carried_by"] == "kernel" && line["path"] == "same_node",
                "{line}"
            );
            ensure!(line["verdict"] == "allow" && line["reason"] == "ok", "{line}");
            ensure!(line["src.identity"] == identity("client"), "{line}");
            ensure!(line["dst.identity"] == identity("server"), "{line}");
            ensure!(
                line["bytes_sent"] == 60_000 && line["bytes_recv"] == 60_000,
                "{line}"
            );
        }
    }

    // A policy that concerns somebody else leaves connections alone; one that forbids them cuts them, with its name.
    let to = stage.server.at4(5000);
    let mut held = stage.hold(to)?;
    mesh.change(|config| config.policy(INSIDE, "others", "client", "DENY", &[&principal("server")]))?;
    ensure!(held.is_alive()?, "nobody forbids it");
    mesh.change(|config| config.policy(INSIDE, "no-client", "server", "DENY", &[&principal("client")]))?;
    ensure!(!held.is_alive()?, "it is forbidden");
    for direction in ["outbound", "inbound"] {
        let line = mesh.agent(1)?.wait_access(SOON, |line| {
            line["direction"] == direction
                && line["reason"] == "policy_denied"
                && line["carried_by"] == "kernel"
        })?;
        ensure!(line["policy"].to_string().contains("no-client"), "{line}");
    }
    // The next one is refused from the first, by the agent and then by the kernel with an error of its own.
    let denied = stage.event("verdict_denied")?;
    wait::until("the kernel to refuse a connection by itself", SOON, || {
        let report = stage.call(to, 100)?;
        ensure!(report["received_bytes"] != 100, "{report}");
        Ok((stage.event("verdict_denied")? > denied).then_some(()))
    })?;
    mesh.agent(1)?.wait_access(SOON, |line| {
        line["direction"] == "outbound"
            && line["carried_by"] == "kernel"
            && line["verdict"] == "deny"
            && line["bytes_sent"] == 0
            && line["policy"].to_string().contains("no-client")
    })?;
    mesh.change(|config| config.remove(&format!("authorizationpolicy-{INSIDE}-no-client")))?;
    let report = stage.call(to, 100)?;
    ensure!(report["received_bytes"] == 100, "allowed again: {report}");
    Ok(())
}

#[test]
fn out_of_the_mesh() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_outside")?;
    let mesh = &stage.mesh;
    let to = stage.outsider.at4(5000);
    // The first is the agent's.
    let mut by_agent = stage.hold(to)?;
    stage.wait_passed(to, "passed_outside")?;
    let report = stage.call(to, 60_000)?;
    ensure!(report["received_bytes"] == 60_000, "{report}");
    let line = mesh
        .agent(1)?
        .wait_access(SOON, |line| line["src.addr"] == report["local"])?;
    ensure!(
        line["carried_by"] == "kernel" && line["path"] == "passthrough",
        "{line}"
    );
    ensure!(
        line["bytes_sent"] == 60_000 && line["bytes_recv"] == 60_000,
        "{line}"
    );
    ensure!(line["reason"] == "ok", "{line}");

    // The address becomes a pod of the mesh: nothing passes by it as before.
    let mut held = stage.hold(to)?;
    let passed = stage.event("passed_outside")?;
    mesh.change(|config| config.remove_pod(&stage.outsider, OUTSIDE))?;
    for held in [&mut held, &mut by_agent] {
        ensure!(held.is_alive()?, "still nobody that the mesh knows");
    }
    mesh.change(|config| config.pod(&stage.outsider, INSIDE, "joined", "joined"))?;
    mesh.wait_enrolled(&stage.outsider)?;
    ensure!(!held.is_alive()?, "it was opened outside the mesh");
    wait::until("the agent to end what it carries there", SOON, || {
        Ok((!by_agent.is_alive()?).then_some(()))
    })?;
    for carrier in [Value::from("kernel"), Value::Null] {
        mesh.agent(1)?.wait_access(SOON, |line| {
            line["carried_by"] == carrier
                && line["path"] == "passthrough"
                && line["reason"] == "mtls_required"
        })?;
    }
    let report = stage.call(to, 100)?;
    ensure!(report["received_bytes"] == 100, "{report}");
    ensure!(
        stage.event("passed_outside")? <= passed,
        "the old verdict is used"
    );
    let line = mesh.agent(1)?.wait_access(SOON, |line| {
        line["src.addr"] == report["local"] && line["direction"] == "inbound"
    })?;
    ensure!(line["dst.identity"] == identity("joined"), "{line}");
    Ok(())
}

/// Who leaves the mesh is a stranger to the other end, also by what the kernel let pass before.
#[test]
fn a_pod_that_leaves() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_leaves")?;
    let mesh = &stage.mesh;
    let to = stage.server.at4(5000);
    stage.wait_passed(to, "passed_direct")?;
    let mut held = stage.hold(to)?;
    mesh.change(|config| config.remove_pod(&stage.client, INSIDE))?;
    ensure!(held.is_alive()?, "plaintext is welcome");
    mesh.change(|config| config.peer_authentication(INSIDE, "STRICT"))?;
    ensure!(!held.is_alive()?, "it is plaintext of a stranger now");
    mesh.agent(1)?.wait_access(SOON, |line| {
        line["carried_by"] == "kernel" && line["reason"] == "mtls_required"
    })?;
    Ok(())
}

#[test]
fn without_an_agent() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("kernel_alone")?;
    let to = stage.server.at4(5000);
    stage.wait_passed(to, "passed_direct")?;
    let mut held = stage.hold(to)?;
    stage.mesh.agents[0].kill()?;
    ensure!(held.is_alive()?, "no agent is in its way");
    let report = stage.call(to, 1_000)?;
    ensure!(report["received_bytes"] == 1_000, "decided before: {report}");
    let report = stage.call(stage.server.at6(5000), 1_000)?;
    ensure!(report["received_bytes"] != 1_000, "never decided: {report}");

    // The next agent knows what lives on.
    let Mesh { agents, net, .. } = &mut stage.mesh;
    agents[0].begin(net)?;
    agents[0].wait_ready()?;
    let is_listed = |stage: &Stage| -> Result<bool> {
        let listed = stage.mesh.agent(1)?.cli("connections")?;
        Ok(listed.to_string().contains(&to.to_string()))
    };
    wait::until("the connection to be listed", SOON, || {
        Ok(is_listed(&stage)?.then_some(()))
    })?;
    ensure!(held.is_alive()?, "and leaves it alone");
    drop(held);
    wait::until("its end to be seen", SOON, || {
        Ok((!is_listed(&stage)?).then_some(()))
    })
}

/// The way between two pods changes: nothing goes from socket to socket by a way that is not known to stay on the node.
#[test]
fn a_way_that_is_lost() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_way")?;
    let to = stage.server.at4(5000);
    stage.wait_passed(to, "passed_direct")?;
    let mut held = stage.hold(to)?;
    stage.mesh.net.move_to_second_bridge(&stage.server)?;
    wait::until("the connection by the old way to end", SOON, || {
        Ok((!held.is_alive()?).then_some(()))
    })?;
    stage.mesh.agent(1)?.wait_access(SOON, |line| {
        line["carried_by"] == "kernel"
            && line["detail"]
                .to_string()
                .contains("not known to stay on this node")
    })?;
    let passed = stage.event("passed_direct")?;
    for _ in 0..5 {
        let report = stage.call(to, 1_000)?;
        ensure!(report["received_bytes"] == 1_000, "by the agent: {report}");
    }
    ensure!(
        stage.event("passed_direct")? <= passed,
        "by a way that nobody proved"
    );
    Ok(())
}
