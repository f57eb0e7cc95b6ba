//! `trafficDistribution`: the endpoints of the client's node or zone while there is one that works, any other else; the
//! same from both nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;

/// Without a preference a client that meets two endpoints meets one alone with probability 2^-29.
const IN_A_ROW: u32 = 30;

fn node(name: &str, zone: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    \
         topology.kubernetes.io/zone: {zone}\n"
    )
}

/// Two Services before the same pods.
fn service(name: &str, vip: IpAddr, distribution: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {INSIDE}}}\nspec:\n  \
         clusterIPs: [{vip}]\n  selector: {{app: server}}\n  {distribution}\n  \
         ports: [{{name: tcp, port: 80, targetPort: 5000}}]\n"
    )
}

/// Who answers a client.
fn answered_by(mesh: &Mesh, client: &Pod, vip: IpAddr) -> Result<BTreeSet<String>> {
    let answers = mesh
        .net
        .call(client, &format!("get http://{vip}:80/hello --count {IN_A_ROW}"))?;
    ensure!(answers.len() == IN_A_ROW as usize, "{answers:?}");
    let instances = answers.iter().map(|answer| {
        ensure!(answer["status"] == 200, "{} to {vip}: {answer}", client.name);
        let body = answer["body"].as_str().context("no body")?;
        Ok(body
            .trim_end()
            .rsplit(' ')
            .next()
            .context("no instance")?
            .to_owned())
    });
    instances.collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn near_endpoints_come_first() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("zones", 2)?;
    let clients = [mesh.pod(1, "client-one")?, mesh.pod(2, "client-two")?];
    let servers = [
        mesh.pod_as(1, "one", "server", "server")?,
        mesh.pod_as(2, "two", "server", "server")?,
    ];
    let [anywhere, zone, same_node] = [1, 2, 3].map(|last| IpAddr::from([10, 96, 77, last]));
    for (name, vip, distribution) in [
        ("anywhere", anywhere, ""),
        ("zone", zone, "trafficDistribution: PreferClose"),
        ("node", same_node, "trafficDistribution: PreferSameNode"),
    ] {
        mesh.config.write(name, &service(name, vip, distribution))?;
    }
    mesh.config.write("node1", &node("node1", "a"))?;
    mesh.config.write("node2", &node("node2", "b"))?;
    mesh.start(&[&clients[0], &clients[1], &servers[0], &servers[1]])?;
    let [_one, two] = servers.each_ref().map(|pod| {
        mesh.net
            .serve(pod, &format!("helloworld --instance {}", pod.name))
    });
    let (_one, two) = (_one?, two?);

    let (both, near) = (names(["one", "two"]), [names(["one"]), names(["two"])]);
    let meet = |what: &str, mesh: &Mesh, vip, expected: [&BTreeSet<String>; 2]| -> Result<()> {
        for (client, expected) in clients.iter().zip(expected) {
            let found = answered_by(mesh, client, vip)?;
            ensure!(
                found == *expected,
                "{what}: {} is answered by {found:?}",
                client.name
            );
        }
        Ok(())
    };
    meet("no preference", &mesh, anywhere, [&both, &both])?;
    meet("zone", &mesh, zone, [&near[0], &near[1]])?;
    meet("node", &mesh, same_node, [&near[0], &near[1]])?;

    // Both nodes in one zone: it makes no difference any more, the node still does.
    mesh.change(|config| config.write("node2", &node("node2", "a")))?;
    meet("one zone", &mesh, zone, [&both, &both])?;
    meet("one zone, node", &mesh, same_node, [&near[0], &near[1]])?;
    mesh.change(|config| config.write("node2", &node("node2", "b")))?;

    // The near one does not answer: the far one does, for whom it is far.
    drop(two);
    meet("two refuses", &mesh, zone, [&near[0], &near[0]])?;
    meet("two refuses", &mesh, same_node, [&near[0], &near[0]])?;
    // It is no endpoint any more.
    mesh.change(|config| config.remove_pod(&servers[1], INSIDE))?;
    meet("two is gone", &mesh, zone, [&near[0], &near[0]])?;
    meet("two is gone", &mesh, same_node, [&near[0], &near[0]])?;
    Ok(())
}
