//! Endpoints that refuse are passed over: a Service with one living endpoint of three answers every connection.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_harness::manifests::Service;
use tramline_harness::mesh::{Mesh, OUTSIDE};

#[test]
fn service_tries_another() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("service_tries_another", 2)?;
    let client = mesh.pod(1, "client")?;
    let dead_near = mesh.pod_as(1, "dead-near", "server", "server")?;
    let dead_far = mesh.pod_as(2, "dead-far", "server", "server")?;
    let alive = mesh.pod_as(2, "alive", "server", "server")?;
    let (service, _) = mesh.service("server", 1, 80, 5000)?;
    mesh.start(&[&client, &dead_near, &dead_far, &alive])?;
    let _server = mesh.net.serve(&alive, "server --port 5000")?;
    for _ in 0..30 {
        let line = mesh
            .net
            .call_one(&client, &format!("client --to {service}:80 --send hello"))?;
        assert_eq!(line["received"], "hello", "{line}");
    }
    Ok(())
}

/// In a migration some endpoints of a Service are in the mesh and others are not.
#[test]
fn what_is_told_is_of_the_endpoint_that_was_reached() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("service_half_meshed", 2)?;
    let client = mesh.pod(1, "client")?;
    let dead = mesh.net.pod(2, "dead")?;
    let alive = mesh.net.pod(2, "alive")?;
    // Of a node where no agent answers, so that its tunnel is refused.
    let mut elsewhere = dead.clone();
    "elsewhere".clone_into(&mut elsewhere.node);
    mesh.config
        .pod_with(&elsewhere, OUTSIDE, "server", "server", &[])?;
    let file = format!("pod-{OUTSIDE}-dead");
    let text = std::fs::read_to_string(mesh.config.dir().join(format!("{file}.yaml")))?;
    let labels = "  labels:\n    istio.io/dataplane-mode: tramline\n";
    mesh.config.write(&file, &text.replace("  labels:\n", labels))?;
    mesh.config.pod(&alive, OUTSIDE, "server", "server")?;
    let vip = std::net::IpAddr::from([10, 96, 77, 9]);
    mesh.config.service(&Service {
        name: "server",
        namespace: OUTSIDE,
        vips: &[vip],
        ports: &[(80, 5000)],
        app: "server",
    })?;
    mesh.start(&[&client])?;
    let _server = mesh.net.serve(&alive, "server --port 5000")?;
    let agent = mesh.agent(1)?;
    let retried = || agent.metric("tramline_service_retries_total", &[]);
    let before = retried()?;
    for _ in 0..200 {
        let line = mesh
            .net
            .call_one(&client, &format!("client --to {vip}:80 --send hello"))?;
        ensure!(line["received"] == "hello", "{line}");
        if retried()? > before {
            break;
        }
    }
    ensure!(retried()? > before, "the dead endpoint was never tried");
    let lines = || {
        let lines = agent.access_log()?;
        let ours = lines
            .into_iter()
            .filter(|line| line["direction"] == "outbound" && line["dst.original"] == format!("{vip}:80"));
        Ok::<_, anyhow::Error>(ours.collect::<Vec<_>>())
    };
    std::thread::sleep(Duration::from_millis(300));
    let lines = lines()?;
    ensure!(!lines.is_empty(), "no lines");
    for line in &lines {
        ensure!(
            line["path"] == "passthrough"
                && line["security"] != "mutual_tls"
                && line["dst.identity"].is_null(),
            "{line}"
        );
    }
    Ok(())
}
