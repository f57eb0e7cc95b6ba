//! Tunnels over a link that loses, delays, reorders, repeats and spoils packets: what arrives is what was sent, every wait
//! has an end, and a half-close is one.
//!
//! A narrow link with a short queue, which loses by itself, is there on every kernel; `netem` is a module of Debian's kernels and
//! so of `cargo xtask test vm`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::world::World;
use tramline_harness::{impair, wait};

/// For what a bad link makes slow; far below what TCP itself waits for, and far above what these links cost.
const LIMIT_MS: u32 = 60_000;

/// Loses what its queue of a few packets cannot hold, and delays the rest.
const NARROW: &str = "tbf rate 12mbit burst 3000 limit 9000";

const NETEM: [(&str, &str); 6] = [
    ("loss", "netem loss 4%"),
    ("delay", "netem delay 40ms 10ms"),
    ("reordering", "netem delay 15ms reorder 25% 50%"),
    ("repetition", "netem duplicate 5%"),
    ("spoilt packets", "netem corrupt 1%"),
    (
        "everything",
        "netem delay 20ms 8ms loss 2% duplicate 1% corrupt 0.5% reorder 10%",
    ),
];

#[test]
fn a_narrow_link() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let world = World::new("bad_link_narrow")?;
    let net = &world.mesh.net;
    net.impair(NARROW)?;
    whole(&world)?;
    let statistics = net.link_statistics()?;
    ensure!(
        impair::dropped(&statistics) > 0,
        "the link lost nothing, so this tested a good one: {statistics}"
    );
    Ok(())
}

#[test]
fn netem() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let world = World::new("bad_link_netem")?;
    let net = &world.mesh.net;
    if !impair::has_netem(net) {
        ensure!(
            std::env::var_os("TRAMLINE_REQUIRE_NETEM").is_none(),
            "this kernel has no netem, and here it must"
        );
        eprintln!(
            "SKIPPED, ONLY THE NARROW LINK IS TESTED: this kernel has no netem (`cargo xtask test vm` has it)"
        );
        return Ok(());
    }
    for (what, discipline) in NETEM {
        net.impair(discipline)?;
        whole(&world).with_context(|| format!("{what}: {discipline}"))?;
    }
    // A link that carries nothing for a while: what is under way waits, and goes on.
    net.impair("netem delay 1ms")?;
    let slow = "--to {} --count 2 --bytes 400000";
    let command = format!(
        "transfer {} --timeout-ms {LIMIT_MS}",
        slow.replace("{}", &world.far.at4(5000).to_string())
    );
    let transfer = net.app(&world.client, &command)?;
    net.impair_otherwise("netem delay 1ms loss 100%")?;
    std::thread::sleep(Duration::from_secs(2));
    net.impair_otherwise("netem delay 1ms")?;
    let lines = transfer.finish(Duration::from_millis(LIMIT_MS.into()))?;
    let report = lines.last().context("no report")?;
    ensure!(report["whole"] == 2, "after two seconds of nothing: {report}");
    Ok(())
}

/// Bytes both ways on several connections of one tunnel, half-closes by either side, and new connections.
fn whole(world: &World) -> Result<()> {
    let net = &world.mesh.net;
    let call = |command: &str| -> Result<Value> { net.call_one(&world.client, command) };
    for to in [world.far.at4(5000), world.far.at6(5000)] {
        let report = call(&format!("transfer --to {to} --timeout-ms {LIMIT_MS}"))?;
        ensure!(report["whole"] == 4, "bytes both ways: {report}");
        let report = call(&format!(
            "storm --to {to} --count 20 --concurrency 4 --timeout-ms {LIMIT_MS}"
        ))?;
        ensure!(report["ok"] == 20, "new connections: {report}");
    }

    // The client ends first: the server's answer comes afterwards.
    let server = net.serve(&world.far, "server --port 6001 --manner reply-after-eof")?;
    let to = world.far.at4(6001);
    let report = call(&format!(
        "client --to {to} --send hello --send-bytes 60000 --then shutdown --timeout-ms {LIMIT_MS}"
    ))?;
    ensure!(
        report["received"] == "got 60005 bytes" && report["end"] == "eof",
        "after the client's half-close: {report}"
    );
    drop(server);

    // The server ends first: the client's words come afterwards.
    let mut server = net.serve(&world.far, "server --port 6002 --manner greet-and-half-close")?;
    let to = world.far.at4(6002);
    let report = call(&format!(
        "client --to {to} --read-first 25 --pause-ms 100 --send late-words --then shutdown --timeout-ms {LIMIT_MS}"
    ))?;
    ensure!(
        report["received_bytes"] == 25 && report["end"] == "eof",
        "{report}"
    );
    let closed = server.wait_event("closed", Duration::from_secs(20))?;
    ensure!(
        closed["text"] == "late-words" && closed["end"] == "eof",
        "after the server's half-close: {closed}"
    );

    // Nothing is left of them.
    let agent = world.mesh.agent(1)?;
    wait::until(
        "the agent to have ended them all",
        Duration::from_secs(20),
        || {
            let open = agent.metric("tramline_connections_open", &[])?;
            Ok((open < 0.5).then_some(()))
        },
    )
    .map_err(|error| error.context(agent.words()))
}
