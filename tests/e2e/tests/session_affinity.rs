//! `sessionAffinity: ClientIP`: a client stays with one endpoint, whichever pod and node either is on; different clients
//! are spread, endpoints that come take nobody away, and one that is gone loses its clients to another for good.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;

/// Connections of a client in a row.
const IN_A_ROW: u32 = 12;
const VIP: &str = "10.96.77.1:80";
const VIP6: &str = "[fd96:77::1]:80";

/// The only endpoint that answers a client.
fn held(mesh: &Mesh, client: &Pod, vip: &str) -> Result<String> {
    let answers = mesh
        .net
        .call(client, &format!("get http://{vip}/hello --count {IN_A_ROW}"))?;
    let mut instances = BTreeMap::<String, u32>::new();
    for answer in &answers {
        ensure!(answer["status"] == 200, "{}: {answer}", client.name);
        let body = answer["body"].as_str().context("no body")?;
        let instance = body.trim_end().rsplit(' ').next().context("no instance")?;
        *instances.entry(instance.to_owned()).or_default() += 1;
    }
    ensure!(
        instances.values().collect::<Vec<_>>() == [&IN_A_ROW],
        "{} was not held: {instances:?}",
        client.name
    );
    instances.into_keys().next().context("no instance")
}

#[test]
fn a_client_stays_with_one_endpoint() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("session_affinity", 2)?;
    let mut clients = Vec::new();
    for number in 0..8_u8 {
        clients.push(mesh.pod_as(1 + number % 2, &format!("client-{number}"), "client", "client")?);
    }
    let mut servers = Vec::new();
    for (node, name) in [(1, "one"), (1, "two"), (2, "three"), (2, "four")] {
        servers.push(mesh.pod_as(node, name, "server", "server")?);
    }
    mesh.config.write(
        "service",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: server, namespace: {INSIDE}}}\nspec:\n  \
             clusterIPs: [10.96.77.1, \"fd96:77::1\"]\n  selector: {{app: server}}\n  \
             sessionAffinity: ClientIP\n  ports: [{{name: tcp, port: 80, targetPort: 5000}}]\n"
        ),
    )?;
    let all: Vec<&Pod> = clients.iter().chain(&servers).collect();
    mesh.start(&all)?;
    let serve = |pod: &Pod| {
        mesh.net
            .serve(pod, &format!("helloworld --instance {}", pod.name))
    };
    let mut processes = servers
        .iter()
        .map(|pod| Ok((pod.name.clone(), serve(pod)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;

    let at = |mesh: &Mesh, vip| {
        clients
            .iter()
            .map(|client| held(mesh, client, vip))
            .collect::<Result<Vec<_>>>()
    };
    let first = at(&mesh, VIP)?;
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    ensure!(distinct.len() > 1, "all clients with one endpoint: {first:?}");
    // By its other address a client may be another one's, and stays there.
    let first6 = at(&mesh, VIP6)?;

    // One that comes takes nobody away.
    let late = mesh.pod_as(1, "late", "server", "server")?;
    mesh.wait_enrolled(&late)?;
    let _late = mesh
        .net
        .serve(&late, &format!("helloworld --instance {}", late.name))?;
    ensure!(at(&mesh, VIP)? == first, "{first:?} before");
    ensure!(at(&mesh, VIP6)? == first6, "{first6:?} before");

    // One that is gone loses its own clients, who stay where they went when it is back; the others notice nothing.
    let lost = first[0].clone();
    drop(processes.remove(&lost).context("no such server")?);
    let second = at(&mesh, VIP)?;
    for (before, after) in first.iter().zip(&second) {
        ensure!(
            (before == after) == (*before != lost),
            "{lost} is gone: {first:?}, then {second:?}"
        );
    }
    let back = servers
        .iter()
        .find(|pod| pod.name == lost)
        .context("no such pod")?;
    let _back = mesh
        .net
        .serve(back, &format!("helloworld --instance {}", back.name))?;
    ensure!(at(&mesh, VIP)? == second, "{lost} is back: {second:?} before");
    Ok(())
}
