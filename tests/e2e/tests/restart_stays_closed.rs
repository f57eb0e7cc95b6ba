//! An agent that comes back and cannot enrol a pod again leaves it as the agent before left it: closed.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;
use tramline_harness::wait;

#[test]
fn restart_stays_closed() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("stays_closed", 1)?;
    let server = mesh.pod(1, "server")?;
    let outsider = mesh.outsider(1, "outsider")?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.start(&[&server])?;
    let _process = mesh.net.serve(&server, "server --port 5000")?;
    ensure!(!knock(&mut mesh, &outsider, &server)?, "STRICT lets plaintext in");

    mesh.agents[0].kill()?;
    server.netns.sysctl("net/ipv4/ip_forward", "1")?;
    mesh.agents[0].begin(&mesh.net)?;
    wait::until("the agent to tell why", Duration::from_secs(15), || {
        let Ok(workloads) = mesh.agents[0].cli("workloads") else {
            return Ok(None);
        };
        Ok(workloads.to_string().contains("forwards packets").then_some(()))
    })?;
    ensure!(
        !knock(&mut mesh, &outsider, &server)?,
        "a pod that cannot be enrolled again was let go"
    );

    server.netns.sysctl("net/ipv4/ip_forward", "0")?;
    mesh.wait_enrolled(&server)?;
    ensure!(!knock(&mut mesh, &outsider, &server)?, "STRICT lets plaintext in");
    Ok(())
}

fn knock(mesh: &mut Mesh, from: &Pod, to: &Pod) -> Result<bool> {
    let command = format!("client --to {} --send hello --timeout-ms 2000", to.at4(5000));
    let line: Value = mesh.net.call_one(from, &command)?;
    Ok(line["received"] == "hello")
}
