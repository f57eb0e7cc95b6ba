//! `--cluster-id`: an agent logs and counts its own cluster by its own setting, and that of a client behind another agent
//! by that agent's word.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::world::World;
use tramline_harness::mesh::identity;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn each_agent_has_its_word_about_its_own_cluster() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("clusters", "server --port 5000")?;
    let pods = [world.client.clone(), world.near.clone(), world.far.clone()];
    // What ends a member of baggage, a label or a text must come through as it is.
    let names = ["east,\"a\\b\";=%", "arn:aws:eks:eu-central-1:1:cluster/west"];
    world.mesh.start_with(&pods.each_ref(), |agent| {
        agent.set("--cluster-id", names[usize::from(agent.node().number) - 1]);
        Ok(())
    })?;
    let [near, far, service] = world.targets4();
    for to in [near, far, service] {
        let outbound = world.exchange(to, "")?.log;
        ensure!(
            outbound["src.cluster"] == names[0] && outbound["dst.cluster"] == names[0],
            "{outbound}"
        );
        let (node, account, cluster) = match to == near {
            true => (1, "near", names[0]),
            false => (2, "far", names[1]),
        };
        let inbound = world.mesh.agent(node)?.wait_access(SOON, |line| {
            line["direction"] == "inbound" && line["trace_id"] == outbound["trace_id"]
        })?;
        ensure!(inbound["dst.identity"] == identity(account), "{inbound}");
        ensure!(
            inbound["src.cluster"] == names[0] && inbound["dst.cluster"] == cluster,
            "{inbound}"
        );
    }
    let labels = [
        "reporter=\"destination\"",
        "source_cluster=\"east,\\\"a\\\\b\\\";=%\"",
        "destination_cluster=\"arn:aws:eks:eu-central-1:1:cluster/west\"",
    ];
    let counted = world
        .mesh
        .agent(2)?
        .metric("istio_tcp_connections_opened_total", &labels)?;
    ensure!((counted - 2.0).abs() < 0.1, "{counted} of 2 connections");
    Ok(())
}
