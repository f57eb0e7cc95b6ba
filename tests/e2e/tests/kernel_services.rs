//! A Service that the kernel resolves: balanced with what the agent carries, under its own name, following every change.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tramline_e2e::world::address;
use tramline_harness::manifests::Service;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(10);

/// A client with one endpoint of Service `server` on its own node, one on the other.
struct Stage {
    mesh: Mesh,
    client: Pod,
    near: Pod,
    service: (IpAddr, IpAddr),
    servers: Vec<Process>,
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 2)?;
        let client = mesh.pod(1, "client")?;
        let near = mesh.pod_as(1, "near", "near", "server")?;
        let far = mesh.pod_as(2, "far", "far", "server")?;
        let service = mesh.service("server", 1, 80, 5000)?;
        // The first listens before its pod is enrolled, as those do that run when the mesh comes to a node.
        let near_server = mesh.net.serve(&near, "server --port 5000")?;
        mesh.start(&[&client, &near, &far])?;
        let servers = vec![near_server, mesh.net.serve(&far, "server --port 5000")?];
        Ok(Self {
            mesh,
            client,
            near,
            service,
            servers,
        })
    }

    fn vip4(&self) -> SocketAddr {
        (self.service.0, 80).into()
    }

    fn event(&self, name: &str) -> Result<f64> {
        let label = format!("event=\"{name}\"");
        self.mesh
            .agent(1)?
            .metric("tramline_ebpf_events_total", &[&label])
    }

    fn call(&self, to: SocketAddr, options: &str) -> Result<Value> {
        let args = format!("client --to {to} --send-bytes 1000 --timeout-ms 5000 {options}");
        self.mesh.net.call_one(&self.client, &args)
    }

    /// Waits until the agent has heard of this many connections to the near endpoint that the kernel led in vain: what is told
    /// is written down last.
    fn wait_told(&self, refused: usize) -> Result<()> {
        let agent = self.mesh.agent(1)?;
        wait::until("the agent to hear of a refused connection", SOON, || {
            let lines = agent.access_log()?;
            let in_vain = lines.iter().filter(|line| {
                line["carried_by"] == "kernel"
                    && line["direction"] == "outbound"
                    && line["dst.workload"] == "near"
                    && line["reason"] == "connect_refused"
            });
            Ok((in_vain.count() >= refused).then_some(()))
        })
    }

    fn all_answered(&self, to: SocketAddr) -> Result<()> {
        for _ in 0..30 {
            let report = self.call(to, "")?;
            ensure!(report["received_bytes"] == 1000, "{report}");
        }
        Ok(())
    }

    /// Calls until the kernel leads a connection by itself, and answers with that one's report.
    fn led(&self, to: SocketAddr, options: &str) -> Result<Value> {
        wait::until("the kernel to lead a connection to an endpoint", SOON, || {
            let before = self.event("service_led")?;
            let report = self.call(to, options)?;
            ensure!(report["received_bytes"] == 1000, "{report}");
            ensure!(
                address(&report["peer"])? == to,
                "not the Service's name: {report}"
            );
            Ok((self.event("service_led")? > before).then_some(report))
        })
    }
}

/// An address that comes or goes makes void what was left about the pod, and no more: the next connection leaves it again.
#[test]
fn led_again_after_an_address_has_come() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_service_readdressed")?;
    stage.led(stage.vip4(), "")?;
    for (pod, address) in [(&stage.client, "10.77.1.201/32"), (&stage.near, "10.77.1.202/32")] {
        pod.netns.ip(&format!("addr add {address} dev eth0\n"))?;
        std::thread::sleep(Duration::from_millis(500));
        stage.led(stage.vip4(), "")?;
    }
    Ok(())
}

#[test]
fn led_by_the_kernel() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_service")?;
    let agent = stage.mesh.agent(1)?;
    stage
        .mesh
        .change(|config| config.peer_authentication(INSIDE, "STRICT"))?;
    for (to, options) in [
        (stage.vip4(), ""),
        ((stage.service.1, 80).into(), ""),
        (stage.vip4(), "--mptcp"),
        ((stage.service.1, 80).into(), "--mptcp"),
        (stage.vip4(), "--how nonblocking"),
        (stage.vip4(), "--mapped"),
    ] {
        let report = stage.led(to, options)?;
        let local = address(&report["local"])?.to_string();
        for direction in ["outbound", "inbound"] {
            let line = agent.wait_access(SOON, |line| {
                line["direction"] == direction && line["src.addr"] == local
            })?;
            ensure!(
                line["carried_by"] == "kernel" && line["reason"] == "ok",
                "{to} {options}: {line}"
            );
            ensure!(
                line["dst.original"] == to.to_string() && line["dst.workload"] == "near",
                "{line}"
            );
            ensure!(
                line["dst.service"].to_string().contains("server.") && line["bytes_sent"] == 1000,
                "{line}"
            );
        }
    }
    Ok(())
}

#[test]
fn balanced_with_what_the_agent_carries() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("kernel_balance")?;
    stage.led(stage.vip4(), "")?;
    let counts =
        || -> Result<[f64; 2]> { Ok([stage.event("service_led")?, stage.event("service_handed_over")?]) };

    // One after the other: both endpoints are idle each time, and chance decides.
    let before = counts()?;
    for _ in 0..100 {
        stage.call(stage.vip4(), "")?;
    }
    let after = counts()?;
    let near = after[0] - before[0];
    ensure!(
        (after[1] - before[1] + near - 100.0).abs() < 0.5,
        "{before:?} {after:?}"
    );
    ensure!(
        (25.0..=75.0).contains(&near),
        "{near} of 100 to the near endpoint"
    );

    // Held open: the less busy of two, whoever carries the connections there.
    let before = counts()?;
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut process = stage
            .mesh
            .net
            .app(&stage.client, &format!("hold --to {} --count 1", stage.vip4()))?;
        process.wait_event("held", SOON)?;
        held.push(process);
    }
    let after = counts()?;
    let near = after[0] - before[0];
    ensure!(
        (13.0..=17.0).contains(&near),
        "{near} of 30 live connections are at the near endpoint"
    );
    Ok(())
}

#[test]
fn follows_every_change() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("kernel_service_change")?;
    let to = stage.vip4();
    stage.led(to, "")?;

    // A policy of the near endpoint: refused by the kernel with an error of its own, the far one goes on.
    stage
        .mesh
        .change(|config| config.policy(INSIDE, "no-client", "server", "DENY", &[&principal("client")]))?;
    for _ in 0..20 {
        let report = stage.call(to, "")?;
        ensure!(report["received_bytes"] != 1000, "forbidden: {report}");
    }
    ensure!(stage.event("verdict_denied")? > 0.0, "the kernel never refused");
    stage
        .mesh
        .change(|config| config.remove(&format!("authorizationpolicy-{INSIDE}-no-client")))?;
    stage.led(to, "")?;

    // Another port behind the Service: what was left leads nowhere from the moment that it is acknowledged.
    let (v4, v6) = stage.service;
    let behind = |target| {
        move |config: &tramline_harness::manifests::Manifests| {
            config.service(&Service {
                name: "server",
                namespace: INSIDE,
                vips: &[v4, v6],
                ports: &[(80, target)],
                app: "server",
            })
        }
    };
    stage.mesh.change(behind(5001))?;
    let led = stage.event("service_led")?;
    for _ in 0..10 {
        let report = stage.call(to, "")?;
        ensure!(
            report["received_bytes"] != 1000,
            "nothing listens there: {report}"
        );
    }
    ensure!(
        stage.event("service_led")? == led,
        "the kernel led a connection to a dead port"
    );
    stage.mesh.change(behind(5000))?;
    stage.led(to, "")?;

    // The near server dies. It is older than the enrolment, so nobody tells the kernel: one connection may find out.
    drop(stage.servers.remove(0));
    let mut refused = 0;
    for _ in 0..30 {
        if stage.call(to, "")?["received_bytes"] != 1000 {
            refused += 1;
            stage.wait_told(refused)?;
        }
    }
    ensure!(refused <= 1, "{refused} of 30 were refused");
    // It comes back, and so does the kernel's way, when the agent has reached it. This time its end is told.
    stage
        .servers
        .push(stage.mesh.net.serve(&stage.near, "server --port 5000")?);
    stage.led(to, "")?;
    stage.servers.pop();
    stage.all_answered(to)?;

    // An address of nobody.
    let nobody = SocketAddr::new(Ipv4Addr::new(10, 96, 77, 1).into(), 81);
    let report = stage.call(nobody, "")?;
    ensure!(report["received_bytes"] != 1000, "{report}");
    Ok(())
}

#[test]
fn an_agent_that_takes_the_kernel_back_has_it_lead_again() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("kernel_service_back")?;
    stage.led(stage.vip4(), "")?;
    let Mesh { agents, net, .. } = &mut stage.mesh;
    let old = agents[0].succeed(net, Duration::from_secs(30))?;
    let mut successor = agents[0].go_back_to(old)?;
    successor.signal(Signal::SIGKILL)?;
    successor.wait(SOON)?;
    agents[0].wait_ready()?;
    stage.led(stage.vip4(), "")?;
    Ok(())
}
