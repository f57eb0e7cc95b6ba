//! The ways to connect and to load that the other tests use, without any mesh: they work on this kernel, so that what
//! fails in a mesh fails because of the mesh.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tramline_harness::net::{Net, Pod};

struct Plain {
    net: Net,
    client: Pod,
    server: Pod,
}

fn plain(kind: &str) -> Result<Plain> {
    let mut net = Net::new(kind, 2)?;
    let client = net.pod(1, "client")?;
    let server = net.pod(2, "server")?;
    Ok(Plain { net, client, server })
}

#[test]
fn every_way_to_connect_works_without_a_mesh() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let Plain { net, client, server } = plain("plain_connects")?;
    let _echo = net.serve(&server, "server --port 5000")?;
    let mptcp = net.serve(&server, "server --port 5001 --mptcp")?;
    let ways = [
        "--how nonblocking",
        "--how fast-open",
        "--how io-uring",
        "--mptcp",
        "--device eth0",
        "--reuse-port --reuse-address",
        "--mark 1",
    ];
    for way in ways {
        for to in [server.at4(5000), server.at6(5000)] {
            let line = net.call_one(&client, &format!("client --to {to} --send hello {way}"))?;
            ensure!(
                line["received"] == "hello" && line["end"] == "eof",
                "{way} to {to}: {line}"
            );
        }
    }
    for bind in [client.at4(41_000), client.at4(0), client.at6(41_001)] {
        let to = if bind.is_ipv4() {
            server.at4(5000)
        } else {
            server.at6(5000)
        };
        let line = net.call_one(&client, &format!("client --to {to} --send hello --bind {bind}"))?;
        ensure!(line["received"] == "hello", "bound to {bind}: {line}");
    }
    let to = server.at4(5000);
    let line = net.call_one(&client, &format!("client --to {to} --send hello --mapped"))?;
    ensure!(
        line["received"] == "hello" && line["peer"] == format!("[::ffff:{}]:5000", server.v4),
        "{line}"
    );
    let line = net.call_one(
        &client,
        &format!("client --to {} --send hello --mptcp", server.at4(5001)),
    )?;
    ensure!(line["received"] == "hello", "MPTCP on both ends: {line}");
    drop(mptcp);
    Ok(())
}

#[test]
fn the_kernel_carries_the_load_without_a_mesh() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let Plain { net, client, server } = plain("plain_load")?;
    let _echo = net.serve(&server, "server --port 5000 --quiet")?;
    let to = server.at4(5000);
    let line = net.call_one(&client, &format!("storm --to {to} --count 2000 --concurrency 4"))?;
    ensure!(line["ok"] == 2000 && line["failed"] == 0, "{line}");
    let mut holder = net.app(&client, &format!("hold --to {to} --count 5000"))?;
    let mut input = holder.stdin().context("no stdin")?;
    let held = holder.wait_event("held", Duration::from_secs(30))?;
    ensure!(held["alive"] == 5000, "{held}");
    writeln!(input, "again")?;
    let checked = holder.wait_event("checked", Duration::from_secs(30))?;
    ensure!(checked["alive"] == 5000, "{checked}");
    drop(input);
    holder.finish(Duration::from_secs(10)).map(drop)
}
