//! A pod that stops answering, its tunnels open: who talks to others never waits for it, and who talks to it is told
//! in the end.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tramline_e2e::world::{PORT, World};

#[test]
fn a_black_hole_keeps_nobody_else_waiting() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("black_hole", "server --port 5000")?;
    let hole = world.mesh.pod(2, "hole")?;
    let (client, near, far) = (world.client.clone(), world.near.clone(), world.far.clone());
    world.mesh.start(&[&client, &near, &far, &hole])?;
    let _server = world.mesh.net.serve(&hole, "server --port 5000")?;
    let warm = world
        .mesh
        .net
        .call_one(&client, &format!("client --to {} --send warm", hole.at4(PORT)))?;
    ensure!(warm["received"] == "warm", "{warm}");

    // What arrives is never answered: there is no way back to the other node.
    hole.netns.ip("route del default via 10.77.2.1\n")?;
    let command = format!("client --to {} --send lost --timeout-ms 45000", hole.at4(PORT));
    let mut stuck = Vec::new();
    for _ in 0..20 {
        stuck.push(world.mesh.net.app(&client, &command)?);
    }
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        for to in [near.at4(PORT), far.at4(PORT)] {
            let begun = Instant::now();
            world.exchange(to, "")?;
            ensure!(
                begun.elapsed() < Duration::from_secs(1),
                "{to} took {:?}",
                begun.elapsed()
            );
        }
    }
    for process in stuck {
        for line in process.finish(Duration::from_secs(50))? {
            ensure!(
                line["connect"] != "ok" || line["end"] != "timeout",
                "nobody told the client: {line}"
            );
            ensure!(line["received_bytes"].as_u64().unwrap_or(0) == 0, "{line}");
        }
    }
    Ok(())
}
