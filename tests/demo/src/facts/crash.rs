//! The agent dies.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tramline_harness::process::Process;

use crate::stage::{PORT, SOON, Stage, text};

/// SIGKILL to the agent of node 1 while connections are open and clients keep asking.
pub(crate) fn killed(stage: &mut Stage) -> Result<String> {
    const MARKER: &str = "not-in-the-clear-while-the-agent-is-dead";
    let far = stage.mesh.net.serve(&stage.v2, "server --port 5005")?;
    let outside = stage.mesh.net.serve(&stage.bystander, "server --port 5005")?;
    let mut meshed = hold(stage, true)?;
    let mut plain = hold(stage, false)?;
    let capture = stage.mesh.net.capture()?;
    stage.mesh.agents[0].kill()?;

    let plain_alive = again(&mut plain)?;
    let meshed_alive = again(&mut meshed)?;
    let others = stage
        .get(&stage.intruder, stage.bystander.at4(PORT), 3, "none")?
        .len();
    let node2 = stage.get(&stage.client, stage.v2.at4(PORT), 3, "none")?.len();
    let mut refused = Vec::new();
    for to in [stage.v2.at4(PORT), stage.v1.at4(PORT)] {
        for report in stage.try_get(&stage.sleep, to, 2, MARKER)? {
            ensure!(report["status"].is_null(), "answered without an agent: {report}");
            refused.push(report["error"].as_str().unwrap_or_default().to_owned());
        }
    }
    refused.dedup();
    let intruder = stage
        .try_get(&stage.intruder, stage.v1.at4(PORT), 1, "none")?
        .remove(0);
    ensure!(
        intruder["status"].is_null(),
        "STRICT is gone with the agent: {intruder}"
    );
    let trace = capture.finish()?;
    ensure!(
        !trace.contains(MARKER.as_bytes()),
        "requests went in the clear when the agent was dead"
    );
    ensure!(plain_alive == 1, "a connection outside the mesh was cut");
    drop((far, outside));
    Ok(format!(
        "goes on: pods outside the mesh ({others} of 3, the open connection lives), enrolled pods of node2 ({node2} of \
         3); stops: new connections of node1's pods ({}), the intruder stays out ({}), of 1 open tunnelled connection \
         {meshed_alive} lives; on the link no byte of the refused requests",
        refused.join(", "),
        text(&intruder, "error")?
    ))
}

/// Until the first answer after the start.
pub(crate) fn restarted(stage: &mut Stage) -> Result<String> {
    let start = Instant::now();
    let net = &stage.mesh.net;
    stage.mesh.agents[0].restart(net)?;
    let ready = start.elapsed();
    let first = loop {
        let report = stage
            .try_get(&stage.sleep, stage.v2.at4(PORT), 1, "none")?
            .remove(0);
        if report["status"] == 200 {
            break start.elapsed();
        }
        ensure!(
            start.elapsed() < Duration::from_secs(20),
            "no answer after the restart: {report}"
        );
    };
    let both = stage.get(&stage.sleep, stage.service4(), 10, "none")?.len();
    let inbound = stage.get(&stage.client, stage.v1.at4(PORT), 5, "none")?.len();
    Ok(format!(
        "ready after {} ms, first answer after {} ms, then {both} of 10 from node1 and {inbound} of 5 towards node1",
        ready.as_millis(),
        first.as_millis()
    ))
}

/// One open connection, through the mesh or outside of it.
fn hold(stage: &Stage, meshed: bool) -> Result<Process> {
    let (from, to) = if meshed {
        (&stage.sleep, &stage.v2)
    } else {
        (&stage.intruder, &stage.bystander)
    };
    let command = format!("hold --to {} --count 1 --timeout-ms 2000", to.at4(5005));
    let mut process = stage.mesh.net.app(from, &command)?;
    let held = process.wait_event("held", SOON)?;
    ensure!(held["alive"] == 1, "{held}");
    Ok(process)
}

/// How many of its connections live.
fn again(process: &mut Process) -> Result<u64> {
    let mut input = process.stdin().context("no stdin")?;
    writeln!(input, "again")?;
    process.wait_event("checked", SOON)?["alive"]
        .as_u64()
        .context("no count")
}
