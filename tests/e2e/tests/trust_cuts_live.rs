//! Who is no longer believed loses live connections within a second: by a root that was removed, at the agent of the
//! server and at that of the client, and by a revocation list. Log and metrics of the agent that decided say why, and
//! others live on.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::authority::{Authority, TrustDir};
use tramline_harness::mesh::{Mesh, identity};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::rotations::certificate;
use tramline_harness::wait;

/// The promise: from the change of a file to the end of the connection, by the clock of the agent's line.
const PROMISE: Duration = Duration::from_secs(1);
/// For whatever has no promise.
const SOON: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// Two nodes with an authority each, which trust each other.
struct Stage {
    mesh: Mesh,
    authorities: [Authority; 2],
    files: [TrustDir; 2],
    here: Pod,
    other: Pod,
    near: Pod,
    there: Pod,
    _servers: Vec<Process>,
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 2)?;
        let here = mesh.pod(1, "here")?;
        let other = mesh.pod(1, "other")?;
        let near = mesh.pod(1, "near")?;
        let there = mesh.pod(2, "there")?;
        let authorities = [Authority::new("one", HOUR)?, Authority::new("two", HOUR)?];
        let [one, two] = &authorities;
        let files = [
            TrustDir::new(&mesh.net, 1, one, &[one, two])?,
            TrustDir::new(&mesh.net, 2, two, &[one, two])?,
        ];
        mesh.start_with(&[&here, &other, &near, &there], |agent| {
            files[usize::from(agent.node().number) - 1].give_to(agent);
            Ok(())
        })?;
        let servers = [&here, &near, &there].map(|pod| mesh.net.serve(pod, "server --port 5000 --quiet"));
        let servers = servers.into_iter().collect::<Result<_>>()?;
        Ok(Self {
            mesh,
            authorities,
            files,
            here,
            other,
            near,
            there,
            _servers: servers,
        })
    }

    /// An open connection that has been answered.
    fn hold(&self, from: &Pod, to: SocketAddr) -> Result<Process> {
        let command = format!("hold --to {to} --count 1 --timeout-ms 3000");
        let mut held = self.mesh.net.app(from, &command)?;
        let event = held.wait_event("held", SOON)?;
        ensure!(event["alive"] == 1, "{event}");
        Ok(held)
    }

    /// The line of a connection that was up and ended for this reason, which must have been soon after `change`.
    fn cut(&self, node: u8, direction: &str, client: &Pod, change: SystemTime) -> Result<Value> {
        let line = self.mesh.agent(node)?.wait_access(SOON, |line| {
            line["direction"] == direction
                && line["src.identity"] == identity(&client.name)
                && line["bytes_recv"].as_u64() > Some(0)
                && line["reason"] == "peer_untrusted"
        })?;
        let took = day_millis(&line)?.saturating_sub(millis_of_day(change)?);
        ensure!(
            u128::from(took) <= PROMISE.as_millis(),
            "cut {took} ms after the change: {line}"
        );
        ensure!(
            line["verdict"] == "fail" && line["response_flags"] == "IDENTITY_ERROR",
            "{line}"
        );
        Ok(line)
    }

    fn counted(&self, node: u8, reporter: &str, reason: &str) -> Result<f64> {
        let labels = [format!("reporter=\"{reporter}\""), format!("reason=\"{reason}\"")];
        self.mesh
            .agent(node)?
            .metric("tramline_verdicts_total", &labels.each_ref().map(String::as_str))
    }

    /// A request that must not be answered: its agent has the one reason, the one at the other end has the other.
    fn refused(&self, from: &Pod, to: SocketAddr, here: &str, there: &str) -> Result<()> {
        let other = if from.node == "node1" { 2 } else { 1 };
        let handshakes = || {
            let labels = ["role=\"server\"", &format!("reason=\"{there}\"")];
            self.mesh
                .agent(other)?
                .metric("tramline_tunnel_handshakes_total", &labels)
        };
        let before = handshakes()?;
        let answer = self.ask(from, to)?;
        ensure!(
            answer["received_bytes"].as_u64().unwrap_or(0) == 0 && answer["end"] != "timeout",
            "{} to {to}: {answer}",
            from.name
        );
        let line = self
            .mesh
            .agent_of(from)?
            .wait_access(SOON, |line| line["src.addr"] == answer["local"])?;
        ensure!(line["reason"] == here, "{line}");
        ensure!(
            handshakes()? > before,
            "node{other} counts no handshake as {there}"
        );
        Ok(())
    }

    /// Waits until requests are answered.
    fn answered(&self, from: &Pod, to: SocketAddr) -> Result<()> {
        wait::until("an answer", SOON, || {
            Ok((self.ask(from, to)?["received"] == "question").then_some(()))
        })
    }

    fn ask(&self, from: &Pod, to: SocketAddr) -> Result<Value> {
        self.mesh
            .net
            .call_one(from, &format!("client --to {to} --send question"))
    }
}

/// Whether the connection that a `hold` has still works.
fn is_alive(held: &mut Process) -> Result<bool> {
    writeln!(held.stdin().context("no stdin")?, "again")?;
    Ok(held.wait_event("checked", SOON)?["alive"] == 1)
}

/// The time of day at which a line says that its connection ended.
fn day_millis(line: &Value) -> Result<u64> {
    let text = line["time"].as_str().context("no time")?;
    let (_, clock) = text.trim_end_matches('Z').split_once('T').context("no clock")?;
    let (clock, millis) = clock.split_once('.').context("no milliseconds")?;
    let seconds = clock
        .split(':')
        .try_fold(0, |sum, part| anyhow::Ok(sum * 60 + part.parse::<u64>()?))?;
    Ok(seconds * 1000 + millis.parse::<u64>()?)
}

fn millis_of_day(at: SystemTime) -> Result<u64> {
    let millis = at.duration_since(UNIX_EPOCH)?.as_millis() % 86_400_000;
    Ok(u64::try_from(millis)?)
}

#[test]
fn a_removed_root_cuts_live_connections_in_both_directions() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("root_removed")?;
    let [one, two] = &stage.authorities;
    let (here, there) = (&stage.here, &stage.there);
    let mut same_node = stage.hold(here, stage.near.at4(5000))?;
    // Once the agent of node 2 ceases to believe node 1, once the other way round: it is a server's agent and a client's.
    for (decides, believes, other) in [(2_u8, two, 1_u8), (1, one, 2)] {
        let files = &stage.files[usize::from(decides) - 1];
        let mut held = [
            stage.hold(here, there.at4(5000))?,
            stage.hold(there, here.at6(5000))?,
        ];
        let (server, client) = if decides == 2 {
            (here, there)
        } else {
            (there, here)
        };
        let before = stage.counted(decides, "destination", "peer_untrusted")?;
        let change = SystemTime::now();
        files.trust(&[believes])?;
        stage.cut(decides, "inbound", server, change)?;
        stage.cut(decides, "outbound", client, change)?;
        ensure!(stage.counted(decides, "destination", "peer_untrusted")? > before);
        ensure!(stage.counted(decides, "source", "peer_untrusted")? >= 1.0);
        for held in &mut held {
            ensure!(!is_alive(held)?, "node{decides} believes node{other} no more");
        }
        // The one that decides says whom it does not believe, the other that it is not believed.
        let said = ["peer_untrusted", "certificate_refused"];
        let [by_one, by_two] = if decides == 1 { said } else { [said[1], said[0]] };
        stage.refused(here, there.at4(5000), by_one, by_two)?;
        stage.refused(there, here.at6(5000), by_two, by_one)?;
        files.trust(&[one, two])?;
        stage.answered(here, there.at4(5000))?;
        stage.answered(there, here.at6(5000))?;
    }
    ensure!(is_alive(&mut same_node)?, "a connection without a tunnel was cut");
    Ok(())
}

#[test]
fn a_revoked_certificate_cuts_its_connections_and_no_others() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("revoked")?;
    let [one, _] = &stage.authorities;
    let (here, to) = (&stage.here, stage.there.at4(5000));
    let mut held = stage.hold(here, to)?;
    let mut others = stage.hold(&stage.other, to)?;
    let shown = certificate(&stage.mesh, 1, &identity("here"))?;
    let serial = shown["serial"].as_str().context("no serial number")?;

    let change = SystemTime::now();
    stage.files[1].revoke(one, &[serial])?;
    stage.cut(2, "inbound", here, change)?;
    ensure!(stage.counted(2, "destination", "peer_untrusted")? >= 1.0);
    ensure!(
        !is_alive(&mut held)?,
        "the revoked certificate's connection lives"
    );
    // The agent of node 1 has no such list and shows the certificate again.
    stage.refused(here, to, "certificate_refused", "peer_untrusted")?;
    stage.answered(&stage.other, to)?;

    // With the list it makes another.
    stage.files[0].revoke(one, &[serial])?;
    stage.answered(here, to)?;
    let shown = certificate(&stage.mesh, 1, &identity("here"))?;
    ensure!(shown["serial"] != serial, "{shown}");
    ensure!(is_alive(&mut others)?, "another certificate's connection was cut");
    Ok(())
}
