//! A pod goes and another service account's pod gets its address, a hundred times: never the old identity, not from
//! the first packet on, neither as client nor as server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tramline_harness::mesh::{INSIDE, Mesh, identity, principal};
use tramline_harness::net::Pod;

/// The address part that is given away again and again.
const HOST: u8 = 200;
const ROUNDS: u32 = 100;

#[test]
fn pod_ip_reuse() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("pod_ip_reuse", 2)?;
    let server = mesh.pod(2, "server")?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config
        .policy(INSIDE, "even-only", "server", "ALLOW", &[&principal("even")])?;
    mesh.start(&[&server])?;
    let process = mesh.net.serve(&server, "server --port 5000")?;
    for round in 0..ROUNDS {
        let even = round % 2 == 0;
        let account = if even { "even" } else { "odd" };
        one_round(&mut mesh, &server, account, round).with_context(|| format!("round {round}, {account}"))?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let words = process.stdout()?;
    ensure!(words.contains("from-even"), "nobody was let in: {words}");
    ensure!(
        !words.contains("from-odd"),
        "an odd pod was taken for an even one"
    );
    Ok(())
}

fn one_round(mesh: &mut Mesh, server: &Pod, account: &str, round: u32) -> Result<()> {
    let pod = mesh.net.pod_at(1, &format!("{account}-{round}"), HOST)?;
    let to = server.at4(5000);
    let command = format!("client --to {to} --send from-{account} --timeout-ms 3000");
    if account == "odd" {
        // Not enrolled yet: the agent may still hold the address as the even pod's.
        let line = mesh.net.call_one(&pod, &command)?;
        ensure!(
            line["connect"] != "ok" || line["received_bytes"] == 0,
            "before enrolment: {line}"
        );
    }
    mesh.config.pod(&pod, INSIDE, account, "client")?;
    mesh.wait_enrolled(&pod)?;
    let line = mesh.net.call_one(&pod, &command)?;
    if account == "even" {
        ensure!(line["received"] == "from-even", "not let in: {line}");
    } else {
        ensure!(
            line["connect"] != "ok" || line["received_bytes"] == 0,
            "let in: {line}"
        );
    }
    let local = line["local"].as_str().unwrap_or_default().to_owned();
    let log = mesh.agent(1)?.wait_access(Duration::from_secs(5), |line| {
        line["direction"] == "outbound"
            && line["src.addr"] == local
            && line["src.workload"] == pod.name.as_str()
    })?;
    ensure!(
        log["src.identity"] == identity(account),
        "logged as another: {log}"
    );
    mesh.config.remove_pod(&pod, INSIDE)?;
    mesh.net.remove_pod(&pod)
}
