//! A mesh that changes its trust domain: one agent has the new one already, the other not yet, and each knows the other's as an
//! alias. Policies written for either hold for both.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;

const SOON: Duration = Duration::from_secs(10);
/// By node.
const DOMAINS: [&str; 2] = ["old.example", "new.example"];

fn principal(trust_domain: &str, account: &str) -> String {
    format!("{trust_domain}/ns/{INSIDE}/sa/{account}")
}

fn is_answered(mesh: &mut Mesh, from: &Pod, to: SocketAddr) -> Result<bool> {
    let command = format!("client --to {to} --send hello --timeout-ms 3000");
    let line: Value = mesh.net.call_one(from, &command)?;
    Ok(line["received"] == "hello")
}

#[test]
fn two_trust_domains_are_one_mesh() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("aliases", 2)?;
    let mut pods = Vec::new();
    for node in [1, 2] {
        for (name, account) in [("friend", "friend"), ("enemy", "enemy"), ("stranger", "stranger")] {
            pods.push(mesh.pod_as(node, &format!("{name}{node}"), account, account)?);
        }
        pods.push(mesh.pod_as(node, &format!("server{node}"), "server", "server")?);
    }
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    // Each in the words of one of the two.
    let (friend, enemy) = (principal(DOMAINS[0], "friend"), principal(DOMAINS[1], "enemy"));
    mesh.config
        .policy(INSIDE, "friends", "server", "ALLOW", &[&friend, "*/sa/enemy"])?;
    mesh.config
        .policy(INSIDE, "no-enemies", "server", "DENY", &[&enemy])?;
    mesh.start_with(&pods.iter().collect::<Vec<_>>(), |agent| {
        let own = usize::from(agent.node().number) - 1;
        agent.set("--trust-domain", DOMAINS[own]);
        agent.set("--trust-domain-alias", DOMAINS[1 - own]);
        Ok(())
    })?;
    let named = |name: &str| {
        let found = pods.iter().find(|pod| pod.name == name);
        found.cloned().with_context(|| format!("no pod {name}"))
    };
    let _servers = [
        mesh.net.serve(&named("server1")?, "server --port 5000")?,
        mesh.net.serve(&named("server2")?, "server --port 5000")?,
    ];
    for (from, to) in [(1, 2), (2, 1), (1, 1), (2, 2)] {
        let server = named(&format!("server{to}"))?.at4(5000);
        for (who, expected) in [("friend", true), ("enemy", false), ("stranger", false)] {
            let client = named(&format!("{who}{from}"))?;
            let answered = is_answered(&mut mesh, &client, server)?;
            ensure!(answered == expected, "{who}{from} to node {to}: {answered}");
        }
    }
    // Each speaks as who its agent says it is, and the other knows which of its workloads that is.
    for (from, to) in [(1, 2), (2, 1)] {
        let own = format!("spiffe://{}", principal(DOMAINS[from - 1], "friend"));
        let line = mesh.agent(u8::try_from(to)?)?.wait_access(SOON, |line| {
            line["direction"] == "inbound" && line["src.identity"] == own
        })?;
        ensure!(
            line["security"] == "mutual_tls" && line["src.workload"] == format!("friend{from}"),
            "{line}"
        );
    }

    // Without the alias the other's certificate is nobody's, whatever its root.
    mesh.agents[0].set("--trust-domain-alias", "else.example");
    mesh.agents[0].stop()?;
    mesh.agents[0].restart(&mesh.net)?;
    mesh.wait_enrolled(&named("server1")?)?;
    let (client, server) = (named("friend2")?, named("server1")?.at4(5000));
    ensure!(
        !is_answered(&mut mesh, &client, server)?,
        "an unknown trust domain is let in"
    );
    let friend = format!("spiffe://{}", principal(DOMAINS[1], "friend"));
    mesh.agent(2)?.wait_access(SOON, |line| {
        line["direction"] == "outbound"
            && line["src.identity"] == friend
            && line["reason"] == "certificate_refused"
    })?;
    Ok(())
}
