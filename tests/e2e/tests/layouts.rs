//! Agents that follow one another have different layouts of maps: to the next version and back, under load, killed at any
//! moment, and with a change of the configuration in between.
//!
//! `TRAMLINE_UPGRADE_ROUNDS` sets how often under load (100 takes a few minutes).

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tramline_e2e::clock::now;
use tramline_e2e::succession::{DRAIN, all_are, ask, rounds, under_load};
use tramline_harness::agent::{Agent, Version};
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::Net;
use tramline_harness::process::Process;
use tramline_harness::wait;

/// Each node goes to the next version and back, and again.
const ROUNDS: usize = 8;

#[test]
fn to_the_next_version_and_back_under_load() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    under_load("layouts", rounds(ROUNDS)?, |round| match round / 2 % 2 {
        0 => Version::Next,
        _ => Version::Present,
    })
}

/// When it dies, in hundredths of the time that a takeover takes on this machine.
const LIVES: [u32; 8] = [20, 35, 50, 60, 70, 80, 90, 100];

/// Has the agent followed by one of this version; how long that took, and the old one, which drains until it is dropped.
fn follow(agent: &mut Agent, net: &Net, version: Version) -> Result<(Duration, Process)> {
    agent.version = version;
    let begun = Instant::now();
    let old = agent.succeed(net, DRAIN)?;
    let took = begun.elapsed();
    old.signal(Signal::SIGTERM)?;
    Ok((took, old))
}

#[test]
fn a_successor_that_is_killed_at_any_moment_leaves_nothing_open() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("killed", 1)?;
    let client = mesh.pod(1, "client")?;
    let stranger = mesh.pod(1, "stranger")?;
    let server = mesh.pod(1, "server")?;
    let outsider = mesh.outsider(1, "outsider")?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config
        .policy(INSIDE, "client-only", "server", "ALLOW", &[&principal("client")])?;
    mesh.start(&[&client, &stranger, &server])?;
    let served = mesh.net.serve(&server, "server --port 5000")?;
    let to = server.at4(5000);
    let probe = format!("probe --to {to} --interval-ms 10 --timeout-ms 15000");
    let mut probe = mesh.net.app(&client, &probe)?;
    let knock = format!("probe --to {to} --interval-ms 2 --timeout-ms 500");
    let mut hostile = [mesh.net.app(&stranger, &knock)?, mesh.net.app(&outsider, &knock)?];
    let (agent, net) = (&mut mesh.agents[0], &mesh.net);
    let (mut takes, first) = follow(agent, net, Version::Next)?;
    let mut drain = vec![first];
    // From the signal until the process is gone.
    let mut dying = Vec::new();
    for (round, hundredths) in LIVES.into_iter().enumerate() {
        // From the present version to the next, and from the next to the present.
        let (serving, dies) = match round % 2 {
            0 => (Version::Present, Version::Next),
            _ => (Version::Next, Version::Present),
        };
        if agent.version != serving {
            let (took, old) = follow(agent, net, serving)?;
            takes = took;
            drain.push(old);
        }
        agent.version = dies;
        let old = agent.begin_successor(net, DRAIN)?;
        std::thread::sleep(takes * hundredths / 100);
        let mut successor = agent.go_back_to(old)?;
        agent.version = serving;
        let killed = now()?;
        successor.signal(Signal::SIGKILL)?;
        successor.wait(Duration::from_secs(5))?;
        dying.push(killed..=now()?);
        agent
            .wait_serving()
            .with_context(|| format!("its successor was killed after {hundredths} % of {takes:?}"))?;
    }
    // All are killed, and the next of either version goes on with what they left.
    let killed = now()?;
    drop(drain);
    dying.push(killed..=now()?);
    for version in [Version::Next, Version::Present] {
        agent.version = version;
        let old = agent.begin_successor(net, DRAIN)?;
        std::thread::sleep(takes * 3 / 4);
        let killed = now()?;
        old.signal(Signal::SIGKILL)?;
        agent.kill()?;
        drop(old);
        dying.push(killed..=now()?);
        agent.restart(net)?;
    }
    drop(probe.stdin());
    let lines = probe.finish(Duration::from_secs(20))?;
    // What an agent carried when it was killed ended with it: one probe at a time. The kernel closes the descriptors of a
    // dying process one after the other, so that what comes next may still be accepted by it; not what begins later.
    let is_cut = |result: &str| matches!(result, "ECONNRESET" | "UnexpectedEof");
    let cut: Vec<_> = lines
        .iter()
        .filter(|line| line["result"].as_str().is_some_and(is_cut))
        .collect();
    for line in &cut {
        let [begun, ended] = [&line["begun_ns"], &line["ended_ns"]].map(Value::as_i64);
        let (begun, ended) = begun.zip(ended).context("no time")?;
        let is_of = |dying: &RangeInclusive<i64>| begun <= *dying.end() && ended >= *dying.start();
        ensure!(
            dying.iter().any(is_of),
            "cut while no agent died: {line}, {dying:?}"
        );
    }
    let asked = all_are(&lines, |result| result == "ok" || is_cut(result))?;
    let kills = LIVES.len() + 4;
    ensure!(
        asked > 50 && cut.len() <= kills,
        "{asked} probes, {} cut in {kills} kills: {cut:?}",
        cut.len()
    );
    for knock in &mut hostile {
        drop(knock.stdin());
    }
    let mut refused = 0;
    for knock in hostile {
        refused += all_are(&knock.finish(Duration::from_secs(10))?, |result| result != "ok")?;
    }
    ensure!(refused > 100, "{refused} refused");
    for line in served.json()?.iter().filter(|line| line["event"] != "listening") {
        let peer = tramline_e2e::world::address(&line["peer"])?.ip();
        ensure!(
            peer == client.v4 || peer == client.v6,
            "the unauthorised reached the application: {line}"
        );
    }
    Ok(())
}

/// Nobody runs when the configuration changes: whoever comes next ends what it forbids, though the kernel carries it.
fn a_change_between(kind: &str, next: Version) -> Result<()> {
    let mut mesh = Mesh::new(kind, 1)?;
    let client = mesh.pod(1, "client")?;
    let server = mesh.pod(1, "server")?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config
        .policy(INSIDE, "rule", "server", "ALLOW", &[&principal("client")])?;
    mesh.start(&[&client, &server])?;
    let _server = mesh.net.serve(&server, "server --port 5000")?;
    let to = server.at4(5000);
    // The first connection is the agent's; the kernel carries the later ones.
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut hold = mesh.net.app(&client, &format!("hold --to {to} --count 5"))?;
        hold.wait_event("held", Duration::from_secs(30))?;
        held.push(hold);
        std::thread::sleep(Duration::from_millis(300));
    }
    let direct = mesh
        .agent(1)?
        .metric("tramline_ebpf_events_total", &["event=\"passed_direct\""])?;
    ensure!(direct >= 5.0, "the kernel carries {direct} connections");
    mesh.agents[0].kill()?;
    mesh.config
        .policy(INSIDE, "rule", "server", "DENY", &[&principal("client")])?;
    mesh.agents[0].version = next;
    mesh.agents[0].restart(&mesh.net)?;
    let mut carried = held.pop().context("two holds")?;
    let input = ask(&mut carried)?;
    let checked = carried.wait_event("checked", Duration::from_secs(60))?;
    ensure!(checked["alive"] == 0, "what is forbidden goes on: {checked}");
    drop(input);
    drop(carried);
    let mut agent = mesh.agents.pop().context("an agent")?;
    agent.stop()?;
    Ok(())
}

#[test]
fn what_a_change_forbids_between_two_agents_of_one_layout_is_ended() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    a_change_between("change-same", Version::Present)
}

#[test]
fn what_a_change_forbids_between_two_layouts_is_ended() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    a_change_between("change-other", Version::Next)
}

/// Connections that the kernel carries while agents follow one another: each has its line, from the one or the other.
fn every_line_is_written(kind: &str, versions: &[Version]) -> Result<()> {
    let mut mesh = Mesh::new(kind, 1)?;
    let client = mesh.pod(1, "client")?;
    let server = mesh.pod(1, "server")?;
    mesh.start(&[&client, &server])?;
    let _server = mesh.net.serve(&server, "server --port 5000")?;
    let to = server.at4(5000);
    let probe = format!("probe --to {to} --interval-ms 2 --timeout-ms 5000");
    let mut probe = mesh.net.app(&client, &probe)?;
    std::thread::sleep(Duration::from_millis(500));
    let mut drain = Vec::new();
    for version in versions {
        drain.push(follow(&mut mesh.agents[0], &mesh.net, *version)?);
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(probe.stdin());
    let asked = all_are(&probe.finish(Duration::from_secs(10))?, |result| result == "ok")?;
    let mut told = (0, 0);
    let all = wait::until("a line of every connection", Duration::from_secs(10), || {
        let lines = mesh.agents[0].access_log()?;
        let ours = lines.iter().filter(|line| {
            line["direction"] == "outbound" && line["dst.original"].as_str() == Some(&to.to_string())
        });
        let by_kernel = |line: &&Value| line["carried_by"] == "kernel";
        let ours: Vec<_> = ours.collect();
        told = (ours.len(), ours.iter().filter(|line| by_kernel(line)).count());
        Ok((told.0 == asked).then_some(()))
    });
    all.with_context(|| format!("{asked} connections, {} lines, {} of the kernel", told.0, told.1))?;
    ensure!(
        told.1 > asked / 2,
        "of {asked} connections the kernel carried {}",
        told.1
    );
    Ok(())
}

#[test]
fn every_connection_has_its_line_whatever_the_layouts() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    every_line_is_written("lines", &[Version::Present, Version::Next, Version::Present])
}
