//! A connection that waits for an endpoint which does not answer, while a policy comes that forbids it the other one: the retry goes by
//! the policy, and that endpoint sees nothing of it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::wait;

/// Each of them takes one of two endpoints.
const CONNECTIONS: usize = 12;
const UNDER_WAY: Duration = Duration::from_millis(700);
const FINISH: Duration = Duration::from_secs(60);

#[test]
fn retry_follows_change() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("retry_follows_change", 2)?;
    let client = mesh.pod(1, "client")?;
    let near = mesh.pod_as(1, "near", "near", "server")?;
    let hole = mesh.pod_as(2, "hole", "hole", "server")?;
    let (vip, _) = mesh.service("server", 1, 80, 5000)?;
    mesh.start(&[&client, &near, &hole])?;
    let _server = mesh.net.serve(&near, "server --port 5000")?;
    let swallow = format!("route add blackhole {}/32\n", hole.v4);
    mesh.net.node(2)?.netns.ip(&swallow)?;
    let command = format!("client --to {vip}:80 --send-bytes 100 --timeout-ms 20000");
    let begin = || mesh.net.app(&client, &command);
    let agent = mesh.agent(1)?;
    let retries = || agent.metric("tramline_service_retries_total", &["result=\"made\""]);
    let reached = || -> Result<f64> {
        let of = |event: &str| {
            let label = format!("event=\"{event}\"");
            agent.metric("tramline_ebpf_events_total", &[&label])
        };
        Ok(of("delivered")? + of("direct_delivered")?)
    };

    let under_way = (0..CONNECTIONS).map(|_| begin()).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(UNDER_WAY);
    mesh.change(|config| config.policy(INSIDE, "no-client", "server", "DENY", &[&principal("client")]))?;
    let (reached_before, retried_before) = (reached()?, retries()?);
    wait::until("the connections to try the other endpoint", FINISH, || {
        Ok((retries()? > retried_before).then_some(()))
    })?;
    let mut answered = 0;
    for process in under_way {
        let reports = process.finish(FINISH)?;
        answered += usize::from(reports.iter().any(|report| report["received_bytes"] == 100));
    }
    ensure!(
        (1..CONNECTIONS).contains(&answered),
        "{answered} of {CONNECTIONS} took the near endpoint at once"
    );
    ensure!(
        reached()? == reached_before,
        "the endpoint was reached after the policy was acknowledged"
    );
    Ok(())
}
