//! An agent whose authority was lost with its state directory makes another, which nobody believes: refused at both ends,
//! never plaintext, though the pods would take it; until what was lost is put back.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::authority::{Authority, TrustDir, wait_trusted};
use tramline_e2e::world::{MARKER, PORT, World};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn an_agent_that_has_lost_its_authority_is_not_believed_and_sends_no_plaintext() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("authority_lost", "server --port 5000")?;
    let hour = Duration::from_secs(3600);
    let (one, two) = (Authority::new("one", hour)?, Authority::new("two", hour)?);
    let files = [
        TrustDir::new(&world.mesh.net, 1, &one, &[&one, &two])?,
        TrustDir::new(&world.mesh.net, 2, &two, &[&one, &two])?,
    ];
    let pods = [world.client.clone(), world.near.clone(), world.far.clone()];
    world.mesh.start_with(&pods.each_ref(), |agent| {
        files[usize::from(agent.node().number) - 1].give_to(agent);
        Ok(())
    })?;
    let capture = world.mesh.net.capture()?;
    let [_, far, service] = world.targets4();
    world.exchange(far, "")?;

    // Its state directory was wiped: it starts with a root of its own, which is nobody else's.
    files[0].remove_authority()?;
    world.mesh.agents[0].kill()?;
    world.mesh.agents[0].restart(&world.mesh.net)?;
    for pod in &pods {
        world.mesh.wait_enrolled(pod)?;
    }
    for to in [far, world.far.at6(PORT), service] {
        let line = world.refused(to)?;
        ensure!(line["reason"] == "certificate_refused", "{line}");
    }
    let dialled = world.near.at4(PORT);
    let command = format!("client --to {dialled} --send {MARKER}");
    let answer = world.mesh.net.call_one(&world.far, &command)?;
    ensure!(answer["received_bytes"].as_u64().unwrap_or(0) == 0, "{answer}");
    let line = world
        .mesh
        .agent(2)?
        .wait_access(SOON, |line| line["dst.original"] == dialled.to_string())?;
    ensure!(line["reason"] == "peer_untrusted", "{line}");

    // What was lost is put back: no restart is needed.
    files[0].sign_with(&one)?;
    wait_trusted(&world.mesh, 1, &["CN=one", "CN=two"])?;
    for to in [far, service] {
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
