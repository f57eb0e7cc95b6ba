//! Agents that follow one another while they carry connections.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ChildStdin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tramline_harness::agent::Version;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::process::Process;

use crate::clock::now;
use crate::hostile::Hostile;

/// Longer than a test: what is cut is cut by a mistake.
pub const DRAIN: Duration = Duration::from_secs(900);
/// For an agent without connections to end.
pub const END: Duration = Duration::from_secs(20);
/// The kind of prober that the kernel refuses by itself, once it knows.
const NEIGHBOUR: &str = "forbidden, same node";
/// Attempts a second by those who may not get in, while agents are replaced. More are meant (see `under_load`): this is what a machine
/// that others keep busy manages as well.
const ATTEMPTS_PER_S: f64 = 600.0;

/// `TRAMLINE_UPGRADE_ROUNDS`, which sets how often agents are replaced under load, else so many.
///
/// # Errors
/// It is no number.
pub fn rounds(usual: usize) -> Result<usize> {
    match std::env::var("TRAMLINE_UPGRADE_ROUNDS") {
        Ok(rounds) => rounds.parse().context("TRAMLINE_UPGRADE_ROUNDS"),
        Err(_) => Ok(usual),
    }
}

/// Replaces the agents of two nodes in turn, by the `version` of each round, under 500 idle and 50 streaming connections, probes
/// and a thousand attempts a second of those who may not: no new connection fails, none that is open is cut, and nobody gets in
/// who may not.
///
/// # Errors
/// One of these is not so.
#[expect(clippy::print_stdout, reason = "the figures of a long run")]
pub fn under_load(kind: &str, rounds: usize, version: impl Fn(usize) -> Version) -> Result<()> {
    let mut mesh = Mesh::new(kind, 2)?;
    let client = mesh.pod(1, "client")?;
    let stranger = mesh.pod(1, "stranger")?;
    let far = mesh.pod(2, "far")?;
    let near = mesh.pod(1, "near")?;
    // On their servers' nodes: what somebody outside the mesh sends over the link is plaintext by right.
    let outsiders = [
        mesh.outsider(1, "outsider-near")?,
        mesh.outsider(2, "outsider-far")?,
    ];
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    for app in ["far", "near"] {
        let name = format!("{app}-client-only");
        mesh.config
            .policy(INSIDE, &name, app, "ALLOW", &[&principal("client")])?;
    }
    let (vip4, vip6) = mesh.service("near", 1, 80, 5000)?;
    mesh.start(&[&client, &stranger, &far, &near])?;
    let servers = [
        mesh.net.serve(&far, "server --port 5000")?,
        mesh.net.serve(&near, "server --port 5000")?,
    ];
    // Those that will carry the load drain for as long as the others, not for the default minute.
    for agent in &mut mesh.agents {
        let first = agent.succeed(&mesh.net, DRAIN)?;
        first.signal(Signal::SIGTERM)?;
    }
    let capture = mesh.net.capture()?;
    let (mut idle, mut streaming, mut probes) = (vec![], vec![], vec![]);
    for to in [far.at4(5000), near.at4(5000)] {
        let mut hold = mesh.net.app(&client, &format!("hold --to {to} --count 250"))?;
        hold.wait_event("held", Duration::from_secs(30))?;
        idle.push(hold);
        streaming.push(
            mesh.net
                .app(&client, &format!("stream --to {to} --count 25 --pause-ms 20"))?,
        );
    }
    let services = [SocketAddr::new(vip4, 80), SocketAddr::new(vip6, 80)];
    let pods = [far.at4(5000), near.at4(5000), far.at6(5000), near.at6(5000)];
    for to in pods.into_iter().chain(services) {
        let probe = format!("probe --to {to} --interval-ms 20 --timeout-ms 5000");
        probes.push(mesh.net.app(&client, &probe)?);
    }
    let mut hostile = Hostile::default();
    // 1,200 a second. Those of the other node cost both agents much more than the others, which no agent need see.
    for (kind, pod, to, interval_ms) in [
        (NEIGHBOUR, &stranger, near.at4(5000), 3),
        ("forbidden, by a Service", &stranger, services[0], 10),
        ("forbidden, other node", &stranger, far.at4(5000), 10),
        ("outside the mesh, to one node", &outsiders[0], near.at4(5000), 3),
        ("outside the mesh, to the other", &outsiders[1], far.at4(5000), 3),
    ] {
        hostile.add(kind, &mesh.net, pod, to, interval_ms)?;
    }
    let (mut old, mut marks) = (Vec::new(), vec![now()?]);
    for round in 0..rounds {
        mesh.agents[round % 2].version = version(round);
        let begun = mesh.agents[round % 2].succeed(&mesh.net, DRAIN);
        let process = begun.with_context(|| format!("round {round}"))?;
        process.signal(Signal::SIGTERM)?;
        old.push(process);
        std::thread::sleep(Duration::from_millis(300));
        marks.push(now()?);
    }
    let mut inputs = Vec::new();
    for hold in &mut idle {
        inputs.push(ask(hold)?);
        let checked = hold.wait_event("checked", Duration::from_secs(60))?;
        ensure!(checked["alive"] == 250, "idle connections were cut: {checked}");
    }
    for mut process in streaming {
        drop(process.stdin());
        let lines = process.finish(Duration::from_secs(30))?;
        let done = lines.last().context("no result of the streams")?;
        ensure!(
            done["whole"] == 25 && done["messages"].as_u64() > Some(25),
            "streams were cut: {done}"
        );
    }
    let mut asked = 0;
    for mut process in probes {
        drop(process.stdin());
        let lines = process.finish(Duration::from_secs(10))?;
        asked += all_are(&lines, |result| result == "ok").with_context(|| unusual(&mesh))?;
    }
    let tried = hostile.finish(&marks)?;
    println!("{rounds} rounds: {asked} probes let in; {tried}");
    ensure!(asked > 100, "{asked} probes");
    ensure!(tried.rate() >= ATTEMPTS_PER_S, "hardly any load: {tried}");
    let by_kernel = tried.ended(NEIGHBOUR, "EACCES");
    ensure!(by_kernel > rounds, "the kernel refused {by_kernel}: {tried}");
    drop(inputs);
    for hold in idle {
        hold.finish(Duration::from_secs(30))?;
    }
    for mut process in old {
        let status = process.wait(END)?;
        ensure!(status.success(), "{status}: {}", process.words());
    }
    capture.finish()?.tls_only(15_008)?;
    for server in &servers {
        for line in server.json()?.iter().filter(|line| line["event"] != "listening") {
            ensure!(
                !hostile.has(&line["peer"])?,
                "the unauthorised reached an application: {line}"
            );
        }
    }
    Ok(())
}

/// Has the connections that a `hold` has verified; they end with its input.
///
/// # Errors
/// It has ended.
pub fn ask(hold: &mut Process) -> Result<ChildStdin> {
    let mut input = hold.stdin().context("no stdin")?;
    writeln!(input, "again")?;
    Ok(input)
}

/// How many probes there were, if all of their results are as they should be.
///
/// # Errors
/// One is not; the message has it.
pub fn all_are(lines: &[Value], right: impl Fn(&str) -> bool) -> Result<usize> {
    let probes: Vec<_> = lines.iter().filter(|line| line["event"] == "probe").collect();
    for line in &probes {
        ensure!(line["result"].as_str().is_some_and(&right), "{line}");
    }
    Ok(probes.len())
}

/// The access-log lines of connections that neither ended well nor were denied.
fn unusual(mesh: &Mesh) -> String {
    let lines = mesh
        .agents
        .iter()
        .flat_map(|agent| agent.access_log().unwrap_or_default());
    let odd = lines.filter(|line| !matches!(line["reason"].as_str(), Some("ok" | "policy_denied")));
    odd.take(20).map(|line| format!("{line}\n")).collect()
}
