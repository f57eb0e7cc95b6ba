//! Endpoints that refuse are passed over: a Service with one living endpoint of three answers every connection.

use anyhow::Result;
use tramline_harness::mesh::Mesh;

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
