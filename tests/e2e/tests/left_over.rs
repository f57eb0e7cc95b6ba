//! An agent that comes back and cannot even look at a pod again: what the agent before it let that pod do, and let in to it, does
//! not outlive the configuration that it was decided by.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh, OUTSIDE};
use tramline_harness::net::Pod;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_pod_that_cannot_be_opened_again_is_closed() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("left_over", 1)?;
    let lost = mesh.pod(1, "lost")?;
    let joins = mesh.outsider(1, "joins")?;
    let outsider = mesh.outsider(1, "outsider")?;
    mesh.start(&[&lost])?;
    let _servers = [
        mesh.net.serve(&joins, "server --port 5000")?,
        mesh.net.serve(&lost, "server --port 5000")?,
    ];
    let passed = |mesh: &Mesh| {
        let labels = ["event=\"passed_outside\""];
        mesh.agent(1)?.metric("tramline_ebpf_events_total", &labels)
    };
    wait::until("the kernel to let a connection leave the mesh", SOON, || {
        let before = passed(&mesh)?;
        ensure!(answers(&mesh, &lost, &joins)?, "outside the mesh");
        Ok((passed(&mesh)? > before).then_some(()))
    })?;
    ensure!(answers(&mesh, &outsider, &lost)?, "plaintext is let in");

    mesh.agents[0].kill()?;
    ensure!(answers(&mesh, &lost, &joins)?, "decided before");
    let manifest = format!("pod-{INSIDE}-lost");
    let text = fs::read_to_string(mesh.config.dir().join(format!("{manifest}.yaml")))?;
    let path = lost.netns.path().display().to_string();
    let nowhere = text.replace(&path, "/run/netns/nowhere");
    ensure!(nowhere != text, "{text}");
    mesh.config.write(&manifest, &nowhere)?;
    mesh.config.remove_pod(&joins, OUTSIDE)?;
    mesh.config.pod(&joins, INSIDE, "joins", "joins")?;
    mesh.agents[0].begin(&mesh.net)?;
    wait::until("the agent to answer", SOON, || {
        Ok(mesh.agent(1)?.cli("workloads").ok())
    })?;
    mesh.wait_enrolled(&joins)?;
    let workloads = mesh.agent(1)?.cli("workloads")?.to_string();
    ensure!(workloads.contains("/run/netns/nowhere"), "{workloads}");
    ensure!(
        !answers(&mesh, &lost, &joins)?,
        "it reaches a pod of the mesh as if that was none"
    );
    ensure!(
        !answers(&mesh, &outsider, &lost)?,
        "what is let in to it follows no configuration"
    );

    mesh.config.write(&manifest, &text)?;
    mesh.wait_enrolled(&lost)?;
    ensure!(answers(&mesh, &lost, &joins)?, "by the agent");
    ensure!(answers(&mesh, &outsider, &lost)?, "plaintext is let in again");
    Ok(())
}

fn answers(mesh: &Mesh, from: &Pod, to: &Pod) -> Result<bool> {
    let command = format!("client --to {} --send hello --timeout-ms 2000", to.at4(5000));
    let line: Value = mesh.net.call_one(from, &command).context(command)?;
    Ok(line["received"] == "hello")
}
