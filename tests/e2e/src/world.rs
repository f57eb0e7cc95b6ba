//! The world most tests stand in: a client, an echo server on its node, one on the other node, and a Service.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{Mesh, identity};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;

/// The port of the echo servers.
pub const PORT: u16 = 5000;
/// The port of the Service before the far server.
pub const SERVICE_PORT: u16 = 80;
/// What the tests send and look for.
pub const MARKER: &str = "a-marker-that-only-applications-know";

/// See the module.
#[derive(Debug)]
pub struct World {
    /// Echo servers: near, far.
    pub servers: Vec<Process>,
    /// Nodes, pods, agents.
    pub mesh: Mesh,
    /// An enrolled client on node 1.
    pub client: Pod,
    /// An enrolled server on node 1.
    pub near: Pod,
    /// An enrolled server on node 2.
    pub far: Pod,
    /// The addresses of Service `far`.
    pub service: (IpAddr, IpAddr),
}

/// One answered connection, as both ends saw it.
#[derive(Debug)]
pub struct Exchange {
    /// The client's report.
    pub client: Value,
    /// The client's own address, as it saw it.
    pub local: SocketAddr,
    /// The access-log line of the client's agent.
    pub log: Value,
}

impl World {
    /// Makes the world with echo servers and running agents.
    ///
    /// # Errors
    /// Something of it cannot be made.
    pub fn new(kind: &str) -> Result<Self> {
        Self::with(kind, "server --port 5000")
    }

    /// The same with other servers.
    ///
    /// # Errors
    /// Something of it cannot be made.
    pub fn with(kind: &str, server: &str) -> Result<Self> {
        let mut world = Self::without_agents(kind, server)?;
        world.mesh.start(&[&world.client, &world.near, &world.far])?;
        Ok(world)
    }

    /// The same, the agents not yet started.
    ///
    /// # Errors
    /// Something of it cannot be made.
    pub fn without_agents(kind: &str, server: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 2)?;
        let client = mesh.pod(1, "client")?;
        let near = mesh.pod(1, "near")?;
        let far = mesh.pod(2, "far")?;
        let service = mesh.service("far", 1, SERVICE_PORT, PORT)?;
        let servers = vec![mesh.net.serve(&near, server)?, mesh.net.serve(&far, server)?];
        Ok(Self {
            servers,
            mesh,
            client,
            near,
            far,
            service,
        })
    }

    /// The IPv4 addresses to try: the server on the same node, the one on the other, the Service.
    #[must_use]
    pub fn targets4(&self) -> [SocketAddr; 3] {
        [
            self.near.at4(PORT),
            self.far.at4(PORT),
            (self.service.0, SERVICE_PORT).into(),
        ]
    }

    /// The IPv6 addresses to try, in the same order.
    #[must_use]
    pub fn targets6(&self) -> [SocketAddr; 3] {
        [
            self.near.at6(PORT),
            self.far.at6(PORT),
            (self.service.1, SERVICE_PORT).into(),
        ]
    }

    /// Sends the marker and gets it back; checks all that must be true of any captured connection: the addresses are
    /// those the application asked for, the server saw the client, the agent logged it with both identities.
    ///
    /// # Errors
    /// Any of it is not so.
    pub fn exchange(&mut self, to: SocketAddr, options: &str) -> Result<Exchange> {
        let command = format!("client --to {to} --send {MARKER} {options}");
        let client = self.mesh.net.call_one(&self.client, &command)?;
        self.check(to, client).with_context(|| command)
    }

    /// Sends the marker and says what came of it.
    ///
    /// # Errors
    /// The client cannot be run.
    pub fn ask(&self, to: SocketAddr, options: &str) -> Result<Value> {
        let command = format!("client --to {to} --send {MARKER} {options}");
        self.mesh.net.call_one(&self.client, &command)
    }

    /// The same where nothing may come back, and somebody must say so: the line of the client's agent about it.
    ///
    /// # Errors
    /// There was an answer, or silence, or no line.
    pub fn refused(&self, to: SocketAddr) -> Result<Value> {
        let answer = self.ask(to, "")?;
        ensure!(
            answer["received_bytes"].as_u64().unwrap_or(0) == 0 && answer["end"] != "timeout",
            "{to}: {answer}"
        );
        let (from, dialled) = (answer["local"].clone(), to.to_string());
        self.mesh.agent(1)?.wait_access(Duration::from_secs(10), |line| {
            line["direction"] == "outbound" && line["src.addr"] == from && line["dst.original"] == dialled
        })
    }

    fn check(&mut self, to: SocketAddr, client: Value) -> Result<Exchange> {
        ensure!(client["connect"] == "ok", "not connected: {client}");
        ensure!(
            client["received"] == MARKER && client["end"] == "eof",
            "no whole answer: {client}"
        );
        let peer = address(&client["peer"])?;
        ensure!(peer == to, "getpeername is {peer}, the application dialled {to}");
        let local = address(&client["local"])?;
        let own: IpAddr = if to.is_ipv4() {
            self.client.v4.into()
        } else {
            self.client.v6.into()
        };
        ensure!(local.ip() == own, "getsockname is {local}, the pod has {own}");

        let near = to.ip() == IpAddr::from(self.near.v4) || to.ip() == IpAddr::from(self.near.v6);
        let server = &mut self.servers[usize::from(!near)];
        let limit = Duration::from_secs(5);
        let seen = |line: &Value| {
            line["event"] == "closed"
                && line["text"] == MARKER
                && address(&line["peer"]).is_ok_and(|p| p.ip() == own)
        };
        server
            .wait_json(limit, seen)
            .context("the server never saw the client's own address")?;

        let (from, dialled) = (local.to_string(), to.to_string());
        let log = self.mesh.agent(1)?.wait_access(limit, |line| {
            line["direction"] == "outbound" && line["src.addr"] == from && line["dst.original"] == dialled
        })?;
        let server_account = if near { "near" } else { "far" };
        ensure!(
            log["src.identity"] == identity("client"),
            "source identity: {log}"
        );
        ensure!(
            log["dst.identity"] == identity(server_account),
            "destination identity: {log}"
        );
        ensure!(
            log["reason"] == "ok" && log["verdict"] == "allow",
            "verdict: {log}"
        );
        Ok(Exchange { client, local, log })
    }
}

/// An address of a report; an IPv4 address as such, also where the socket calls it v4-mapped.
///
/// # Errors
/// It is not one.
pub fn address(value: &Value) -> Result<SocketAddr> {
    let text = value
        .as_str()
        .with_context(|| format!("not an address: {value}"))?;
    let parsed: SocketAddr = text.parse().with_context(|| format!("not an address: {text}"))?;
    Ok(SocketAddr::new(parsed.ip().to_canonical(), parsed.port()))
}
