//! Without a mesh a pod with CAP_NET_RAW alone does put packets with a foreign source on the wire: what the spoofing
//! test does there is real, and the capture sees the very last packet.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::container::as_container;
use tramline_harness::net::Net;

#[test]
fn a_pod_with_net_raw_forges_packets_on_the_plain_net() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut net = Net::new("plain_forgery", 2)?;
    let mallory = net.pod(1, "mallory")?;
    let friend = net.pod(1, "friend")?;
    let server = net.pod(2, "server")?;
    let mut echo = net.serve(&server, "server --port 5000")?;
    let capture = net.capture()?;
    let to = server.at4(5000);
    let marked = as_container(
        &net,
        &mallory,
        &format!("client --to {to} --mark 5 --send marked"),
    )?;
    ensure!(
        marked[0]["received"] == "marked",
        "SO_MARK with CAP_NET_RAW: {marked:?}"
    );
    echo.wait_event("accepted", Duration::from_secs(2))?;
    let bind = friend.at4(0);
    let command = format!("client --to {to} --transparent --bind {bind} --timeout-ms 500");
    let transparent = as_container(&net, &mallory, &command)?;
    ensure!(
        transparent[0]["connect"] == "timeout",
        "the answers go to the friend: {transparent:?}"
    );
    as_container(
        &net,
        &mallory,
        &format!("forge --from {} --to {to}", friend.at4(4000)),
    )?;
    let trace = capture.finish()?;
    let forged = trace
        .streams()
        .filter(|(direction, _)| direction.from.ip() == friend.at4(0).ip())
        .count();
    ensure!(
        forged == 2,
        "{forged} forged connections on the link: {:?}",
        trace.streams().collect::<Vec<_>>()
    );
    Ok(())
}
