//! A connection that a new policy forbids is cut within a second, on the same node and across nodes; others live on.

use std::time::{Duration, Instant};

use anyhow::Result;
use tramline_e2e::held::Held;
use tramline_harness::mesh::{INSIDE, Mesh, identity, principal};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn policy_cuts_live() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("policy_cuts_live", 2)?;
    let friend = mesh.pod(1, "friend")?;
    let stranger = mesh.pod(1, "stranger")?;
    let far = mesh.pod_as(2, "far", "far", "server")?;
    let near = mesh.pod_as(1, "near", "near", "server")?;
    mesh.start(&[&friend, &stranger, &far, &near])?;
    let _servers = [
        mesh.net.serve(&far, "server --port 5000")?,
        mesh.net.serve(&near, "server --port 5000")?,
    ];
    let mut held = Vec::new();
    for (pod, allowed) in [(&friend, true), (&stranger, false)] {
        for to in [far.at4(5000), near.at4(5000)] {
            held.push((Held::new(&mesh.net, pod, to)?, to, allowed));
        }
    }
    let before = Instant::now();
    mesh.change(|config| config.policy(INSIDE, "friends-only", "server", "ALLOW", &[&principal("friend")]))?;
    std::thread::sleep(Duration::from_millis(300));
    for (connection, to, allowed) in &mut held {
        assert_eq!(
            connection.is_alive()?,
            *allowed,
            "to {to}, {:?} after the change",
            before.elapsed()
        );
    }
    // Both ends say why: the agent of the source learns it from the one that decided.
    for (node, direction, path) in [
        (2, "inbound", "hbone"),
        (1, "outbound", "hbone"),
        (1, "inbound", "same_node"),
        (1, "outbound", "same_node"),
    ] {
        let cut = mesh.agent(node)?.wait_access(SOON, |line| {
            line["direction"] == direction
                && line["path"] == path
                && line["src.identity"] == identity("stranger")
                && line["duration_ms"].as_u64() > Some(100)
        })?;
        assert_eq!(cut["reason"], "policy_denied", "{cut}");
        assert_eq!(cut["verdict"], "deny", "{cut}");
        let closed = mesh.agent(node)?.metric(
            "istio_tcp_connections_closed_total",
            &[
                if direction == "inbound" {
                    "reporter=\"destination\""
                } else {
                    "reporter=\"source\""
                },
                "response_flags=\"DENY\"",
            ],
        )?;
        assert!(closed >= 1.0, "node {node} {direction}: {closed}");
    }
    Ok(())
}
