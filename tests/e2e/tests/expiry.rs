//! An agent that cannot sign any more refuses, and says so: never a byte in plaintext, though the pods would take it.
//!
//! Node 1 loses its authority's files, which changes nothing until the authority expires, then everything in and out of
//! the node that needs a certificate; a restart does not open it, and the authority's successor brings it back.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use tramline_e2e::authority::{Authority, TrustDir, wait_trusted};
use tramline_e2e::world::{MARKER, PORT, SERVICE_PORT, World};
use tramline_harness::mesh::identity;
use tramline_harness::wait;

/// Of the authority of node 1: time to be taken and to be seen working.
const LIFE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(10);

#[test]
fn without_a_certificate_nothing_goes_in_plaintext() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    // No PeerAuthentication: every pod takes plaintext, so that an agent which falls back to it is answered.
    let mut world = World::without_agents("expiry", "server --port 5000")?;
    let hour = Duration::from_secs(3600);
    let (first, other) = (Authority::new("first", hour)?, Authority::new("other", hour)?);
    let next = Authority::new("next", hour)?;
    let files = [
        TrustDir::new(&world.mesh.net, 1, &first, &[&other])?,
        TrustDir::new(&world.mesh.net, 2, &other, &[&first])?,
    ];
    let pods = [world.client.clone(), world.near.clone(), world.far.clone()];
    world.mesh.start_with(&pods.each_ref(), |agent| {
        files[usize::from(agent.node().number) - 1].give_to(agent);
        agent.set("--certificate-ttl", "10s");
        Ok(())
    })?;
    let capture = world.mesh.net.capture()?;
    let [near, far, service] = world.targets4();
    let short = Authority::new("short", LIFE)?;
    let begun = Instant::now();
    for (node, files) in (1..).zip(&files) {
        files.trust(&[&short, &other, &next])?;
        let signs = if node == 1 { vec!["CN=first"] } else { vec![] };
        let trusted = [signs, vec!["CN=next", "CN=other", "CN=short"]].concat();
        wait_trusted(&world.mesh, node, &trusted)?;
    }
    files[0].sign_with(&short)?;
    wait_trusted(&world.mesh, 1, &["CN=next", "CN=other", "CN=short"])?;
    let mut held = world
        .mesh
        .net
        .app(&world.client, &format!("hold --to {far} --count 1"))?;
    held.wait_event("held", SOON)?;

    // The last good reading stays in force, and new certificates are signed with it.
    files[0].remove_authority()?;
    wait::until("the agent to say that its authority is gone", SOON, || {
        let agent = world.mesh.agent(1)?;
        let counted = agent.metric("tramline_trust_errors", &[])? > 0.5;
        Ok((counted && agent.words().contains("is gone")).then_some(()))
    })?;
    for to in [far, service] {
        world.exchange(to, "")?;
    }
    ensure!(begun.elapsed() < LIFE, "too slow to have seen it working");

    std::thread::sleep(LIFE.saturating_sub(begun.elapsed()) + Duration::from_secs(1));
    let targets = [
        far,
        world.far.at6(PORT),
        (world.service.1, SERVICE_PORT).into(),
        service,
    ];
    for to in targets {
        let line = world.refused(to)?;
        ensure!(line["reason"] == "no_certificate", "{line}");
        ensure!(
            line["verdict"] == "fail" && line["response_flags"] == "IDENTITY_ERROR",
            "{line}"
        );
        ensure!(
            line["detail"]
                .as_str()
                .is_some_and(|text| text.contains("expired")),
            "it does not say what to do: {line}"
        );
    }
    // Towards the node without certificates: both ends have a line, and the one that knows says why.
    let dialled = world.near.at4(PORT);
    let answer = world
        .mesh
        .net
        .call_one(&world.far, &format!("client --to {dialled} --send {MARKER}"))?;
    ensure!(answer["received_bytes"].as_u64().unwrap_or(0) == 0, "{answer}");
    let inbound = world.mesh.agent(1)?.wait_access(SOON, |line| {
        line["direction"] == "inbound" && line["dst.identity"] == identity("near")
    })?;
    ensure!(inbound["reason"] == "no_certificate", "{inbound}");
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        let labels = [reporter, "reason=\"no_certificate\""];
        let counted = world.mesh.agent(1)?.metric("tramline_verdicts_total", &labels)?;
        ensure!(counted >= 1.0, "{reporter}: {counted}");
    }
    let agent = world.mesh.agent(1)?;
    let failed = agent.metric("tramline_certificates_issued_total", &["result=\"failed\""])?;
    let made = agent.metric("tramline_certificates_issued_total", &["result=\"made\""])?;
    let ends = agent.metric("tramline_authority_expiry_timestamp_seconds", &[])?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    ensure!(
        failed >= 1.0 && made >= 2.0 && ends <= now,
        "{failed} failed, {made} made, {ends} at {now}"
    );
    // What needs no certificate goes on: the same node, and a connection that was open.
    world.exchange(near, "")?;
    writeln!(held.stdin().context("no stdin")?, "again")?;
    ensure!(
        held.wait_event("checked", SOON)?["alive"] == 1,
        "an open connection was cut"
    );

    // An agent that finds the expired authority at its start does not start, and the pods stay closed.
    files[0].sign_with(&short)?;
    world.mesh.agents[0].kill()?;
    world.mesh.agents[0].begin(&world.mesh.net)?;
    let failed = world.mesh.agents[0]
        .wait_ready()
        .err()
        .context("started with an expired authority")?;
    ensure!(format!("{failed:#}").contains("has expired"), "{failed:#}");
    for to in [far, service] {
        let answer = world.ask(to, "--timeout-ms 800")?;
        ensure!(answer["received_bytes"].as_u64().unwrap_or(0) == 0, "{answer}");
    }

    // Its successor, which the others trust already, brings it back.
    files[0].sign_with(&next)?;
    world.mesh.agents[0].restart(&world.mesh.net)?;
    for pod in &pods {
        world.mesh.wait_enrolled(pod)?;
    }
    for to in targets {
        world.exchange(to, "")?;
    }
    let trace = capture.finish()?;
    ensure!(
        !trace.contains(MARKER.as_bytes()),
        "the marker crossed the link in the clear"
    );
    trace.tls_only(15_008)?;
    Ok(())
}
