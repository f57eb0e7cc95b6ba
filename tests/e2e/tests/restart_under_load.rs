//! The agent is killed and started again twenty times (`TRAMLINE_RESTART_ROUNDS`) while clients keep connecting: never plaintext
//! on the link, never a byte of the unauthorised, and service is back after each start.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::succession::all_are;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::wait;

const ROUNDS: usize = 20;

fn rounds() -> Result<usize> {
    std::env::var("TRAMLINE_RESTART_ROUNDS").map_or(Ok(ROUNDS), |rounds| Ok(rounds.parse()?))
}

#[test]
fn restart_under_load() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("restart", 2)?;
    let client = mesh.pod(1, "client")?;
    let stranger = mesh.pod(1, "stranger")?;
    let outsider = mesh.outsider(1, "outsider")?;
    let far = mesh.pod(2, "far")?;
    let near = mesh.pod(1, "near")?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    for app in ["far", "near"] {
        mesh.config.policy(
            INSIDE,
            &format!("{app}-client-only"),
            app,
            "ALLOW",
            &[&principal("client")],
        )?;
    }
    mesh.start(&[&client, &stranger, &far, &near])?;
    let servers = [
        mesh.net.serve(&far, "server --port 5000")?,
        mesh.net.serve(&near, "server --port 5000")?,
    ];
    let capture = mesh.net.capture()?;
    let mut probes = Vec::new();
    let mut hostile = Vec::new();
    for to in [far.at4(5000), near.at4(5000), far.at6(5000), near.at6(5000)] {
        // An emulated processor cannot answer so many so soon; what is checked is no clock.
        let [interval, patience] = [20, 800].map(|ms| wait::stretched(Duration::from_millis(ms)).as_millis());
        let probe = format!("probe --to {to} --interval-ms {interval} --timeout-ms {patience}");
        probes.push(mesh.net.app(&client, &probe)?);
        hostile.push(mesh.net.app(&stranger, &probe)?);
        if to.ip() == near.at4(1).ip() {
            // Only on its own node: what an outsider sends over the link is plaintext by right.
            hostile.push(mesh.net.app(&outsider, &probe)?);
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    for round in 0..rounds()? {
        let index = round % 2;
        mesh.agents[index].kill()?;
        // Some rounds start again at once, some leave time for retransmissions to meet the dead agent.
        std::thread::sleep(Duration::from_millis(50 * (round as u64 % 5)));
        let lines: Vec<usize> = probes
            .iter()
            .map(|p| p.json().map(|l| l.len()))
            .collect::<Result<_>>()?;
        mesh.agents[index].restart(&mesh.net)?;
        for pod in [&client, &far, &near] {
            mesh.wait_enrolled(pod)?;
        }
        for (probe, before) in probes.iter_mut().zip(lines) {
            let back = wait::until("service after a restart", Duration::from_secs(10), || {
                Ok(probe
                    .json()?
                    .iter()
                    .skip(before)
                    .any(|line| line["result"] == "ok")
                    .then_some(()))
            });
            ensure!(back.is_ok(), "round {round}: {back:?}; {}", probe.words());
        }
    }
    for mut process in probes {
        drop(process.stdin());
        process.finish(Duration::from_secs(10))?;
    }
    for mut process in hostile {
        drop(process.stdin());
        let lines = process.finish(Duration::from_secs(10))?;
        let refused = all_are(&lines, |result| result != "ok")?;
        ensure!(refused > rounds()?, "it tried {refused} times");
    }
    // Who was refused is told by name, also while an agent starts.
    for agent in &mesh.agents {
        let nameless = agent.access_log_with(|line| line.contains("unknown_workload"))?;
        ensure!(
            nameless.is_empty(),
            "{} refusals, such as {}",
            nameless.len(),
            nameless[0]
        );
    }
    let trace = capture.finish()?;
    trace.tls_only(15_008)?;
    let pods = [
        stranger.v4.to_string(),
        outsider.v4.to_string(),
        stranger.v6.to_string(),
        outsider.v6.to_string(),
    ];
    for server in &servers {
        for line in server.json()?.iter().filter(|line| line["event"] != "listening") {
            let peer = tramline_e2e::world::address(&line["peer"])?.ip().to_string();
            ensure!(
                !pods.contains(&peer),
                "the unauthorised reached an application: {line}"
            );
        }
    }
    Ok(())
}
