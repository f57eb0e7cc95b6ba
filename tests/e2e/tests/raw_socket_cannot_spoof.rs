//! A pod with CAP_NET_RAW, as containerd gives it: sets every mark, binds foreign addresses, forges SYNs. It stays
//! who it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tramline_e2e::container::as_container;
use tramline_harness::mesh::{INSIDE, Mesh, identity, principal};

/// Every bit, all bits, and the marks that meshes and CNIs are known to use.
fn marks() -> Vec<u32> {
    let mut marks: Vec<u32> = (0..32).map(|bit| 1 << bit).collect();
    marks.extend([0, u32::MAX, 0x539, 0x4d1, 0x4000, 0x8000, 0x1337, 0x111, 0xfff]);
    marks
}

#[test]
fn raw_socket_cannot_spoof() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("raw_socket", 2)?;
    let friend = mesh.pod(1, "friend")?;
    let mallory = mesh.pod(1, "mallory")?;
    let outsider = mesh.outsider(1, "outsider")?;
    let near = mesh.pod_as(1, "near", "near", "server")?;
    let far = mesh.pod_as(2, "far", "far", "server")?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config
        .policy(INSIDE, "friends-only", "server", "ALLOW", &[&principal("friend")])?;
    mesh.start(&[&friend, &mallory, &near, &far])?;
    let servers = [
        mesh.net.serve(&near, "server --port 5000")?,
        mesh.net.serve(&far, "server --port 5000")?,
    ];

    for to in [near.at4(5000), near.at6(5000), far.at4(5000), far.at6(5000)] {
        for source in [&mallory, &outsider] {
            for mark in marks() {
                let command = format!("client --to {to} --mark {mark} --send as-mallory --timeout-ms 2000");
                let line = as_container(&mesh.net, source, &command)?
                    .pop()
                    .context("no output")?;
                let talked = line["connect"] == "ok" && line["received_bytes"] != 0;
                ensure!(!talked, "{} with mark {mark:#x} to {to}: {line}", source.name);
            }
        }
    }
    for to in [near.at4(5000), far.at4(5000)] {
        for source in [&mallory, &outsider] {
            // IP_TRANSPARENT wants no more than CAP_NET_RAW (ip(7)).
            let bind = friend.at4(0);
            let command =
                format!("client --to {to} --transparent --bind {bind} --send as-mallory --timeout-ms 1000");
            let line = as_container(&mesh.net, source, &command)?
                .pop()
                .context("no output")?;
            ensure!(
                line["connect"] != "ok" || line["received_bytes"] == 0,
                "as {bind} to {to}: {line}"
            );
            let list: Vec<String> = marks().iter().map(u32::to_string).collect();
            let command = format!(
                "forge --from {} --to {to} --marks {}",
                friend.at4(40_000),
                list.join(",")
            );
            let sent = as_container(&mesh.net, source, &command)?;
            ensure!(
                sent.iter().any(|line| line["result"] == "sent"),
                "no packet could be forged: {sent:?}"
            );
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    for server in &servers {
        let met = server.json()?;
        ensure!(
            met.is_empty() || met.iter().all(|l| l["event"] == "listening"),
            "the application met: {met:?}"
        );
    }
    for agent in &mesh.agents {
        for line in agent.access_log()? {
            ensure!(
                line["src.identity"] != identity("friend"),
                "taken for the friend: {line}"
            );
        }
    }
    // The friend is let in all the while, so the refusals above are about who asks.
    for to in [near.at4(5000), near.at6(5000), far.at4(5000), far.at6(5000)] {
        let line = mesh
            .net
            .call_one(&friend, &format!("client --to {to} --send as-friend"))?;
        ensure!(line["received"] == "as-friend", "the friend to {to}: {line}");
    }
    Ok(())
}
