//! The test net itself, without any mesh: pods reach each other in both families, on both nodes, with their own
//! addresses, and nothing of it stays behind.

use anyhow::{Context, Result};
use tramline_harness::net::{Net, Pod};
use tramline_harness::run::leftovers;

fn exchange(net: &Net, client: &Pod, to: std::net::SocketAddr, expected: std::net::IpAddr) -> Result<()> {
    let line = net.call_one(
        client,
        &format!("client --to {to} --send marker-of-the-plain-net"),
    )?;
    assert_eq!(line["connect"], "ok", "{to}: {line}");
    assert_eq!(line["received"], "marker-of-the-plain-net", "{to}: {line}");
    assert_eq!(line["peer"], to.to_string());
    let local: std::net::SocketAddr = line["local"].as_str().context("no local address")?.parse()?;
    assert_eq!(local.ip(), expected);
    Ok(())
}

#[test]
fn pods_reach_each_other_and_nothing_stays_behind() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut net = Net::new("plain_network", 2)?;
    let id = net.run().id().to_owned();
    let client = net.pod(1, "client")?;
    let near = net.pod(1, "near")?;
    let far = net.pod(2, "far")?;
    let mut servers = Vec::new();
    for pod in [&near, &far] {
        servers.push(net.serve(pod, "server --port 5000")?);
    }
    let capture = net.capture()?;
    for pod in [&near, &far] {
        exchange(&net, &client, pod.at4(5000), client.v4.into())?;
        exchange(&net, &client, pod.at6(5000), client.v6.into())?;
    }
    let seen = servers[1].wait_event("accepted", std::time::Duration::from_secs(2))?;
    let peer: std::net::SocketAddr = seen["peer"].as_str().context("no peer")?.parse()?;
    assert_eq!(
        peer.ip(),
        std::net::IpAddr::from(client.v4),
        "the server sees the client"
    );

    // The capture must be able to see plaintext, else "no plaintext" of the mesh tests would mean nothing.
    let trace = capture.finish()?;
    assert!(trace.contains(b"marker-of-the-plain-net"));
    let refused = trace.tls_only(15_008).expect_err("this link carried plaintext");
    assert!(refused.to_string().contains("plaintext"), "{refused:#}");

    let closed = net.call_one(&client, &format!("client --to {}", far.at4(9)))?;
    assert_eq!(closed["connect"], "ECONNREFUSED", "a closed port");
    let nowhere = net.call_one(&client, "client --to 10.96.77.1:80")?;
    assert_eq!(
        nowhere["connect"], "ENETUNREACH",
        "a Service address has no route: {nowhere}"
    );

    net.remove_pod(&near)?;
    assert!(!near.netns.path().exists() && !near.cgroup.exists());
    drop(servers);
    assert!(!leftovers(&id)?.is_empty(), "the net is there while it is used");
    net.end()?;
    assert_eq!(leftovers(&id)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn what_a_crashed_run_left_is_found_and_removed() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut net = Net::new("crashed", 1)?;
    let id = net.run().id().to_owned();
    let pod = net.pod(1, "victim")?;
    let server = net.serve(&pod, "server --port 5000")?;
    let pid = server.pid();
    server.detach();
    // A process id that no process has: to `clean` this run's owner is dead.
    let owner = net.run().dir().join("owner.json");
    let text = std::fs::read_to_string(&owner)?.replace(&std::process::id().to_string(), "4194305");
    std::fs::write(&owner, text)?;
    std::mem::forget(net);
    tramline_harness::run::clean(tramline_harness::run::Which::Crashed)?;
    assert_eq!(leftovers(&id)?, Vec::<String>::new());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(
        state.is_empty() || state.contains(") Z "),
        "the server still runs: {state}"
    );
    Ok(())
}
