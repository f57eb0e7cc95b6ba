//! What an agent finds open at its start: what the kernel let pass between pods goes on while it is allowed, plaintext that the
//! agent before let in ends where it is forbidden by now, and nothing has a grace that it had already.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::held::Held;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn restart_judges() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("restart_judges", 1)?;
    let client = mesh.pod(1, "client")?;
    let server = mesh.pod(1, "server")?;
    let stranger = mesh.outsider(1, "stranger")?;
    mesh.start(&[&client, &server])?;
    let _server = mesh.net.serve(&server, "server --port 5000")?;
    let to = server.at4(5000);
    let event = |mesh: &Mesh, name: &str| {
        let label = format!("event=\"{name}\"");
        mesh.agent(1)?.metric("tramline_ebpf_events_total", &[&label])
    };
    wait::until("the kernel to let a connection pass", SOON, || {
        let before = event(&mesh, "passed_direct")?;
        mesh.net
            .call_one(&client, &format!("client --to {to} --send hello"))?;
        Ok((event(&mesh, "passed_direct")? > before).then_some(()))
    })?;
    let mut by_kernel = Held::new(&mesh.net, &client, to)?;
    let passed = event(&mesh, "plaintext_passed")?;
    let mut plaintext = Held::new(&mesh.net, &stranger, to)?;
    ensure!(event(&mesh, "plaintext_passed")? > passed, "plaintext is welcome");

    mesh.agents[0].kill()?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    let Mesh { agents, net, .. } = &mut mesh;
    agents[0].begin(net)?;
    agents[0].wait_ready()?;
    plaintext.wait_dead("what is forbidden by now to end")?;
    let line = mesh.agent(1)?.wait_access(SOON, |line| {
        line["path"] == "plaintext" && line["reason"] == "mtls_required"
    })?;
    ensure!(
        line["src.addr"].to_string().contains(&stranger.v4.to_string()),
        "{line}"
    );
    ensure!(by_kernel.is_alive()?, "it is allowed");
    // A grace would end it later.
    let status = mesh.agent(1)?.cli("status")?;
    ensure!(
        status["details"]["connections.open_before_enrolment"] == "0",
        "{status}"
    );
    Ok(())
}
