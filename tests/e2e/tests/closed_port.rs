//! A port nobody listens on: refuses a client outside the mesh at once, ends a captured one promptly and says why.

use std::time::Duration;

use anyhow::Result;
use tramline_e2e::world::World;

/// Prompt: what a person does not notice.
const PROMPT_US: u64 = 1_000_000;
const CLOSED: u16 = 5999;

#[test]
fn closed_port() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("closed_port", "server --port 5000")?;
    let outsider = world.mesh.outsider(1, "outsider")?;
    let (client, near, far) = (world.client.clone(), world.near.clone(), world.far.clone());
    world.mesh.start(&[&client, &near, &far])?;
    for to in [
        near.at4(CLOSED),
        near.at6(CLOSED),
        far.at4(CLOSED),
        far.at6(CLOSED),
    ] {
        // Looking up a neighbour for the first time may take a second by itself.
        let open = std::net::SocketAddr::new(to.ip(), 5000);
        world
            .mesh
            .net
            .call_one(&outsider, &format!("client --to {open} --send warm"))?;
        let line = world.mesh.net.call_one(&outsider, &format!("client --to {to}"))?;
        assert_eq!(line["connect"], "ECONNREFUSED", "from outside to {to}: {line}");
        assert!(
            line["connect_us"].as_u64().is_some_and(|us| us < PROMPT_US),
            "{line}"
        );

        let line = world
            .mesh
            .net
            .call_one(&client, &format!("client --to {to} --then read"))?;
        let early = line["connect"] == "ok";
        assert!(
            early || line["connect"] == "ECONNREFUSED",
            "captured to {to}: {line}"
        );
        if early {
            assert_eq!(line["received_bytes"], 0, "{line}");
            assert_eq!(
                line["end"], "ECONNRESET",
                "a refusal must not look like an orderly end: {line}"
            );
            assert!(line["us"].as_u64().is_some_and(|us| us < PROMPT_US), "{line}");
        }
        let dialled = to.to_string();
        let log = world.mesh.agent(1)?.wait_access(Duration::from_secs(5), |line| {
            line["direction"] == "outbound" && line["dst.original"] == dialled
        })?;
        assert_eq!(log["reason"], "connect_refused", "{log}");
    }
    Ok(())
}
