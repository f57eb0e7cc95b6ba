//! One connection to a Service on another node, told by both agents: lines that one id joins, the same Service at both
//! ends, times, and metrics; then a rotated access log.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tramline_e2e::world::World;
use tramline_harness::manifests::Manifests;
use tramline_harness::mesh::identity;
use tramline_harness::wait;

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn telemetry() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("telemetry")?;
    let [_, _, service] = world.targets4();
    let outbound = world.exchange(service, "")?.log;
    let host = format!("far.{}.svc.cluster.local", tramline_harness::mesh::INSIDE);
    let inbound = world
        .mesh
        .agent(2)?
        .wait_access(LIMIT, |line| line["trace_id"] == outbound["trace_id"])?;
    assert_eq!(
        outbound["trace_id"].as_str().map(str::len),
        Some(32),
        "{outbound}"
    );
    assert_eq!(inbound["direction"], "inbound", "{inbound}");
    for line in [&outbound, &inbound] {
        assert_eq!(line["dst.service"], host.as_str(), "{line}");
        assert_eq!(line["src.identity"], identity("client"), "{line}");
        assert_eq!(line["dst.identity"], identity("far"), "{line}");
        assert_eq!(line["security"], "mutual_tls", "{line}");
        let connect = line["connect_ms"].as_f64().context("no connect_ms")?;
        assert!(connect > 0.0 && connect < 5000.0, "{line}");
        let (start, end) = (line["start"].as_str(), line["time"].as_str());
        assert!(start.is_some() && start <= end, "{line}");
    }
    assert_eq!(inbound["bytes_recv"], outbound["bytes_sent"]);
    assert_eq!(inbound["bytes_sent"], outbound["bytes_recv"]);

    let service = format!("destination_service=\"{host}\"");
    for (node, reporter, role) in [(1, "source", "client"), (2, "destination", "server")] {
        let agent = world.mesh.agent(node)?;
        let (reporter, role) = (format!("reporter=\"{reporter}\""), format!("role=\"{role}\""));
        let at_least_one = |name: &str, labels: &[&str]| -> Result<()> {
            let found = agent.metric(name, labels)?;
            anyhow::ensure!(found >= 1.0, "node {node}: {name} {labels:?}: {found}");
            Ok(())
        };
        at_least_one("istio_tcp_connections_opened_total", &[&reporter, &service])?;
        at_least_one("istio_tcp_sent_bytes_total", &[&reporter, &service])?;
        at_least_one("tramline_connect_seconds_count", &[&reporter, "path=\"hbone\""])?;
        at_least_one("tramline_tunnel_handshakes_total", &[&role, "reason=\"ok\""])?;
        at_least_one("tramline_tunnel_handshake_seconds_count", &[&role])?;
        at_least_one("tramline_verdicts_total", &[&reporter, "verdict=\"allow\""])?;
        at_least_one("tramline_config_last_success_timestamp_seconds", &[])?;
        at_least_one("tramline_certificates", &[])?;
        at_least_one("tramline_ebpf_map_capacity", &["map="])?;
    }
    let agent = world.mesh.agent(1)?;
    assert!(agent.metric("tramline_tunnel_connects_total", &["reason=\"ok\""])? >= 1.0);

    every_metric_has_a_source(&agent.get("/metrics")?.body)?;

    let moved = agent.rotate_access_log()?;
    assert!(moved.iter().any(|line| line["trace_id"] == outbound["trace_id"]));
    // Its line is looked for in the file under the old name, which the agent has to make anew.
    let [_, far, _] = world.targets4();
    let next = world.exchange(far, "")?.log;
    assert_ne!(next["trace_id"], outbound["trace_id"]);

    // A connection that is open when the agent is asked to stop gets its line.
    let command = format!("hold --to {far} --count 1 --timeout-ms 60000");
    let mut held = world.mesh.net.app(&world.client, &command)?;
    held.wait_event("held", LIMIT)?;
    let agent = world.mesh.agents.first_mut().context("no agent")?;
    agent.stop()?;
    let last = agent.access_log()?.pop().context("no line")?;
    assert_eq!(last["reason"], "cancelled", "{last}");
    assert_eq!(last["dst.original"], far.to_string(), "{last}");
    Ok(())
}

/// Whatever is announced is also measured, but for what did not happen here.
fn every_metric_has_a_source(text: &str) -> Result<()> {
    let announced = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for name in announced.filter_map(|line| line.split(' ').next()) {
        let has = |sample: &str| {
            sample.strip_prefix(name).is_some_and(|rest| {
                ["_total", "_count", "{", " "]
                    .iter()
                    .any(|end| rest.starts_with(end))
            })
        };
        // Measured where a connection fails, and in tests/e2e/tests/dry_run.rs.
        let absent = ["istio_tcp_connections_failed", "tramline_dry_run"].contains(&name);
        anyhow::ensure!(absent || text.lines().any(has), "nothing measures {name}");
    }
    Ok(())
}

#[test]
fn late_enrolments_and_refused_configurations_are_counted() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("late", "server --port 5000")?;
    let command = format!("hold --to {} --count 3 --timeout-ms 60000", world.far.at4(5000));
    let mut held = world.mesh.net.app(&world.client, &command)?;
    let opened = held.wait_event("held", LIMIT)?;
    anyhow::ensure!(opened["alive"] == 3, "{opened}");
    world.mesh.start(&[&world.client, &world.near, &world.far])?;
    for node in [1, 2] {
        let agent = world.mesh.agent(node)?;
        let found = agent.metric("tramline_late_enrolments_total", &[])?;
        assert!((found - 1.0).abs() < 0.1, "node {node}: {found} pods");
        let found = agent.metric("tramline_connections_uncaptured", &[])?;
        assert!((found - 3.0).abs() < 0.1, "node {node}: {found} connections");
    }

    let agent = world.mesh.agent(1)?;
    let applied = agent.metric("tramline_config_updates_total", &["result=\"applied\""])?;
    assert!(applied >= 1.0, "{applied}");
    let bad = Manifests::of(&world.mesh.net).dir().join("bad.yaml");
    std::fs::write(
        &bad,
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: bad, namespace: sample}\n\
         spec: {mtls: {mode: NONSENSE}}\n",
    )?;
    let errors = |wanted: f64| {
        wait::until("the count of errors", LIMIT, || {
            let errors = agent.metric("tramline_config_errors", &[])?;
            Ok(((errors > 0.5) == (wanted > 0.5)).then_some(()))
        })
    };
    errors(1.0)?;
    assert!(agent.metric("tramline_config_updates_total", &["result=\"refused\""])? >= 1.0);
    std::fs::remove_file(&bad)?;
    errors(0.0)
}
