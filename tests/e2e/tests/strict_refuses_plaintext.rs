//! STRICT: a client outside the mesh is let in before, and gets nothing through after; the mesh is not disturbed.

use std::time::Duration;

use anyhow::Result;
use tramline_e2e::world::{PORT, World};
use tramline_harness::mesh::INSIDE;

#[test]
fn strict_refuses_plaintext() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("strict", "server --port 5000")?;
    let intruders = [
        world.mesh.outsider(1, "intruder-near")?,
        world.mesh.outsider(2, "intruder-far")?,
    ];
    let (client, near, far) = (world.client.clone(), world.near.clone(), world.far.clone());
    world.mesh.start(&[&client, &near, &far])?;
    let targets = [near.at4(PORT), near.at6(PORT), far.at4(PORT), far.at6(PORT)];
    let attempt = |world: &World, which: usize, to| {
        world.mesh.net.call_one(
            &intruders[which],
            &format!("client --to {to} --send plaintext-of-an-intruder"),
        )
    };
    // Without this the refusals below could have any reason.
    for to in targets {
        for which in [0, 1] {
            let line = attempt(&world, which, to)?;
            assert_eq!(
                line["received"], "plaintext-of-an-intruder",
                "permissive, to {to}: {line}"
            );
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = [world.servers[0].json()?.len(), world.servers[1].json()?.len()];
    world
        .mesh
        .change(|config| config.peer_authentication(INSIDE, "STRICT"))?;
    for to in targets {
        for which in [0, 1] {
            let line = attempt(&world, which, to)?;
            let talked = line["connect"] == "ok" && line["received_bytes"] != 0;
            assert!(!talked, "strict, but the intruder talked to {to}: {line}");
            assert!(line["connect"] != "timeout", "a refusal must be prompt: {line}");
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let after = [world.servers[0].json()?.len(), world.servers[1].json()?.len()];
    assert_eq!(before, after, "an application met a connection of an intruder");
    for to in world.targets4().into_iter().chain(world.targets6()) {
        world.exchange(to, "")?;
    }
    Ok(())
}
