//! An endpoint on the other node from which nothing comes back is passed over, from both nodes, by clients with tunnels to
//! it and by such without: every request is answered within the time for all attempts, few wait at all, and the endpoint
//! is used again when it is back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::Mesh;
use tramline_harness::net::Pod;
use tramline_harness::wait;

/// A client that takes one of four endpoints at random misses one in all of them with probability (3/4)^60.
const IN_A_ROW: u32 = 60;
/// For all attempts of one connection (docs/CONFIG.md), and for the answer.
const BUDGET: Duration = Duration::from_secs(16);
/// How long an endpoint that failed is not tried again.
const AVOIDED: Duration = Duration::from_secs(5);
/// Whoever waits longer has met the hole, which has a third of the budget.
const WAITED: Duration = Duration::from_millis(2_500);
const BACK: Duration = Duration::from_secs(20);

/// Who answered, how many had to wait, and how long the others took in all.
struct Answers {
    instances: BTreeSet<String>,
    waited: u32,
    others: Duration,
}

fn answers(client: &Pod, lines: &[Value]) -> Result<Answers> {
    let mut found = Answers {
        instances: BTreeSet::new(),
        waited: 0,
        others: Duration::ZERO,
    };
    for line in lines {
        ensure!(line["status"] == 200, "{}: {line}", client.name);
        let took = Duration::from_micros(line["us"].as_u64().context("no time")?);
        ensure!(took < BUDGET, "{}: {line}", client.name);
        if took > WAITED {
            found.waited += 1;
        } else {
            found.others += took;
        }
        let body = line["body"].as_str().context("no body")?;
        let instance = body.trim_end().rsplit(' ').next().context("no instance")?;
        found.instances.insert(instance.to_owned());
    }
    ensure!(lines.len() == IN_A_ROW as usize, "{} answers", lines.len());
    Ok(found)
}

#[test]
fn an_endpoint_that_swallows_packets_is_passed_over() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("service_black_hole", 2)?;
    // With a tunnel to each endpoint, and without any.
    let warm = [mesh.pod(1, "warm-one")?, mesh.pod(2, "warm-two")?];
    let fresh = [mesh.pod(1, "fresh-one")?, mesh.pod(2, "fresh-two")?];
    let mut endpoints = Vec::new();
    for (node, name) in [(1, "one"), (2, "two"), (2, "three"), (1, "four")] {
        endpoints.push(mesh.pod_as(node, name, "server", "server")?);
    }
    let holes = [&endpoints[0], &endpoints[1]];
    let (v4, v6) = mesh.service("server", 1, 80, 5000)?;
    let all: Vec<&Pod> = warm.iter().chain(&fresh).chain(&endpoints).collect();
    mesh.start(&all)?;
    let _servers = endpoints
        .iter()
        .map(|pod| {
            mesh.net
                .serve(pod, &format!("helloworld --instance {}", pod.name))
        })
        .collect::<Result<Vec<_>>>()?;
    let ask = |client: &Pod, to: SocketAddr| {
        let limit = BUDGET.as_millis();
        let command = format!("get http://{to}/hello --count {IN_A_ROW} --timeout-ms {limit}");
        mesh.net.app(client, &command)
    };
    let targets: [SocketAddr; 2] = [(v4, 80).into(), (v6, 80).into()];
    for (client, to) in warm.iter().flat_map(|client| targets.map(|to| (client, to))) {
        let found = answers(client, &ask(client, to)?.finish(Duration::from_secs(60))?)?;
        ensure!(
            found.instances.len() == endpoints.len(),
            "{}: {:?}",
            client.name,
            found.instances
        );
    }

    // Each node drops what it should forward to its own; what stays on the node is not forwarded.
    let swallow = |verb: &str| -> Result<()> {
        for (hole, number) in holes.iter().zip(1..) {
            let (v4, v6) = (hole.v4, hole.v6);
            mesh.net.node(number)?.netns.ip(&format!(
                "route {verb} blackhole {v4}/32\nroute {verb} blackhole {v6}/128\n"
            ))?;
        }
        Ok(())
    };
    swallow("add")?;
    let mut running = Vec::new();
    for client in warm.iter().chain(&fresh) {
        for to in targets {
            running.push((client, ask(client, to)?));
        }
    }
    for (client, process) in running {
        let found = answers(client, &process.finish(Duration::from_secs(120))?)?;
        let hole = if client.node == "node1" { "two" } else { "one" };
        ensure!(
            !found.instances.contains(hole),
            "{} was answered by {hole}",
            client.name
        );
        // One request finds out; a further one only after the endpoint was left alone for a while.
        let most = 2 + u32::try_from(found.others.as_secs() / AVOIDED.as_secs())?;
        ensure!(
            (1..=most).contains(&found.waited),
            "{}: {} of {IN_A_ROW} waited, at most {most} may",
            client.name,
            found.waited
        );
    }
    for node in [1, 2] {
        let made = mesh
            .agent(node)?
            .metric("tramline_service_retries_total", &["result=\"made\""])?;
        ensure!(made >= 1.0, "node{node} made {made} retries");
    }

    swallow("del")?;
    for (client, hole) in [(&warm[0], "two"), (&fresh[1], "one")] {
        wait::until("the endpoint to be used again", BACK, || {
            let lines = ask(client, targets[0])?.finish(Duration::from_secs(60))?;
            Ok(answers(client, &lines)?.instances.contains(hole).then_some(()))
        })?;
    }
    Ok(())
}
