//! Certificates that live 10 s are renewed while connections are opened and others go on, in both directions between
//! two nodes: no request fails and no connection is cut.
//!
//! `TRAMLINE_ROTATION_SECONDS` sets for how long (300 is what the promise was tried with).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tramline_harness::load::Load;
use tramline_harness::mesh::{INSIDE, Mesh, identity};
use tramline_harness::rotations::Rotations;

const SECONDS: u64 = 22;
/// The shortest life that an agent takes, renewed at 45 to 55 % of it.
const TTL_SECONDS: u64 = 10;
/// Well below half a life: no certificate is missed.
const LOOK: Duration = Duration::from_millis(500);

fn seconds() -> Result<u64> {
    match std::env::var("TRAMLINE_ROTATION_SECONDS") {
        Ok(seconds) => seconds.parse().context("TRAMLINE_ROTATION_SECONDS"),
        Err(_) => Ok(SECONDS),
    }
}

#[test]
fn certificates_rotate_under_load_and_no_request_fails() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let seconds = seconds()?;
    let mut mesh = Mesh::new("rotation", 2)?;
    let here = mesh.pod(1, "here")?;
    let there = mesh.pod(2, "there")?;
    let (service, _) = mesh.service("there", 1, 80, 5000)?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.start_with(&[&here, &there], |agent| {
        agent.set("--certificate-ttl", format!("{TTL_SECONDS}s"));
        Ok(())
    })?;
    let _servers = [
        mesh.net.serve(&here, "server --port 5000 --quiet")?,
        mesh.net.serve(&there, "server --port 5000 --quiet")?,
    ];
    let mut load = Load::default();
    for to in [there.at4(5000), there.at6(5000), (service, 80).into()] {
        load.add(&mesh.net, &here, to)?;
    }
    load.add(&mesh.net, &there, here.at4(5000))?;

    // Each is a client's and a server's certificate at once.
    let mut rotations = Rotations::default();
    rotations.follow(1, identity("here"));
    rotations.follow(2, identity("there"));
    let handshakes = || -> Result<f64> {
        let served = ["role=\"server\"", "reason=\"ok\""];
        let at = |node| {
            mesh.agent(node)?
                .metric("tramline_tunnel_handshakes_total", &served)
        };
        Ok(at(1)?.min(at(2)?))
    };
    let before = handshakes()?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        rotations.look(&mesh)?;
        std::thread::sleep(LOOK);
    }
    let took = begun.elapsed().as_secs();
    let done = load.finish()?;

    // Twice as many are due: the margin is for a machine that is busy with other things.
    let least = usize::try_from(seconds / TTL_SECONDS)?.max(2);
    ensure!(
        rotations.fewest() >= least,
        "{:?} renewals, at least {least} are due",
        rotations.counts()
    );
    // What was renewed was shown: a tunnel takes no new streams once its client's certificate was renewed.
    let tunnels = handshakes()? - before;
    ensure!(
        tunnels >= f64::from(u32::try_from(least)?),
        "{tunnels} tunnels for {:?} renewals",
        rotations.counts()
    );
    for node in [1, 2] {
        let refused = mesh
            .agent(node)?
            .metric("tramline_certificates_issued_total", &["result=\"failed\""])?;
        ensure!(
            refused < 0.5,
            "node{node}: {refused} certificates could not be made"
        );
        let failed = mesh
            .agent(node)?
            .metric("tramline_verdicts_total", &["verdict=\"fail\""])?;
        ensure!(failed < 0.5, "node{node} counts {failed} failed connections");
    }
    eprintln!(
        "{took} s: {} requests and {} messages on {} long connections, none failed; renewals {:?}, {tunnels} or more \
         tunnels per direction",
        done.requests,
        done.messages,
        done.streams,
        rotations.counts()
    );
    Ok(())
}
