//! What applications expect of TCP.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::stage::{PORT, SOON, Stage, ip, text};

/// IPv6 by pod and by Service, v4-mapped.
pub(crate) fn families(stage: &mut Stage) -> Result<String> {
    let mut seen = Vec::new();
    for to in [stage.v1.at6(PORT), stage.v2.at6(PORT), stage.service6()] {
        let report = stage.get(&stage.sleep, to, 1, "none")?.remove(0);
        let saw = ip(&report, "server_saw")?;
        ensure!(
            saw == stage.sleep.v6,
            "{to}: the server saw {saw}, not {}",
            stage.sleep.v6
        );
        seen.push(format!("{to} answered, server saw {saw}"));
    }
    let server = stage.mesh.net.serve(&stage.v2, "server --port 5001")?;
    let line = one(
        stage,
        &format!("client --to {} --mapped --send mapped", stage.v2.at4(5001)),
    )?;
    ensure!(line["received"] == "mapped", "v4-mapped: {line}");
    drop(server);
    seen.push(format!("v4-mapped {} answered", text(&line, "peer")?));
    Ok(seen.join("; "))
}

/// The server answers only after the end of input.
pub(crate) fn half_close(stage: &mut Stage) -> Result<String> {
    let mut seen = Vec::new();
    for server in [&stage.v1, &stage.v2] {
        let process = stage
            .mesh
            .net
            .serve(server, "server --port 5002 --manner reply-after-eof")?;
        let line = one(
            stage,
            &format!("client --to {} --send 12345678 --then shutdown", server.at4(5002)),
        )?;
        ensure!(
            line["received"] == "got 8 bytes" && line["end"] == "eof",
            "{}: {line}",
            server.name
        );
        seen.push(format!(
            "{}: {} then {}",
            server.name, line["received"], line["end"]
        ));
        drop(process);
    }
    Ok(seen.join("; "))
}

/// `SO_LINGER` 0 at the server.
pub(crate) fn reset(stage: &mut Stage) -> Result<String> {
    let mut seen = Vec::new();
    for server in [&stage.v1, &stage.v2] {
        let process = stage
            .mesh
            .net
            .serve(server, "server --port 5003 --manner reset")?;
        let line = one(
            stage,
            &format!("client --to {} --send hello --then read", server.at4(5003)),
        )?;
        ensure!(line["end"] == "ECONNRESET", "{}: {line}", server.name);
        seen.push(format!("{}: {}", server.name, text(&line, "end")?));
        drop(process);
    }
    Ok(seen.join("; "))
}

/// Nobody listens: at once for who is outside, promptly and with its reason for who is captured.
pub(crate) fn closed_port(stage: &mut Stage) -> Result<String> {
    let to = stage.v2.at4(5999);
    let outside = stage
        .mesh
        .net
        .call_one(&stage.intruder, &format!("client --to {to}"))?;
    ensure!(outside["connect"] == "ECONNREFUSED", "the intruder: {outside}");
    let inside = one(stage, &format!("client --to {to} --then read"))?;
    let ended = inside["connect"] == "ECONNREFUSED" || inside["end"] == "ECONNRESET";
    ensure!(ended, "sleep: {inside}");
    let dialled = to.to_string();
    let log = stage
        .agent(1)?
        .wait_access(SOON, |line| line["dst.original"] == dialled)?;
    ensure!(log["reason"] == "connect_refused", "{log}");
    Ok(format!(
        "{to}: intruder {} after {} us; sleep reset after {} us, logged as {}",
        text(&outside, "connect")?,
        outside["connect_us"],
        inside.get("us").unwrap_or(&inside["connect_us"]),
        text(&log, "reason")?
    ))
}

/// Applications bind the ports that other meshes take.
pub(crate) fn ports_free(stage: &mut Stage) -> Result<String> {
    let mut held = Vec::new();
    for port in [15_000, 15_001, 15_006, 15_020, 15_021, 15_053, 15_090] {
        let server = stage.mesh.net.serve(&stage.v1, &format!("server --port {port}"));
        held.push(server.with_context(|| format!("the application cannot listen on {port}"))?);
    }
    let line = one(
        stage,
        &format!("client --to {} --send my-own-15001", stage.v1.at4(15_001)),
    )?;
    ensure!(line["received"] == "my-own-15001", "15001: {line}");
    Ok(format!(
        "helloworld-v1 listens on 7 ports from 15000 to 15090 itself; its own 15001 echoed {}",
        line["received"]
    ))
}

/// Connections in a row, with how long they took; the bystander shows the machine without a mesh.
pub(crate) fn none_lost(stage: &mut Stage) -> Result<String> {
    const COUNT: u32 = 500;
    let mut seen = Vec::new();
    for (name, from, server) in [
        ("no mesh, other node", &stage.intruder, &stage.bystander),
        ("mesh, same node", &stage.sleep, &stage.v1),
        ("mesh, other node", &stage.sleep, &stage.v2),
    ] {
        let process = stage.mesh.net.serve(server, "server --port 5004 --quiet")?;
        let line = stage
            .mesh
            .net
            .call_one(from, &format!("storm --to {} --count {COUNT}", server.at4(5004)))?;
        ensure!(line["ok"] == COUNT && line["failed"] == 0, "{name}: {line}");
        seen.push(format!(
            "{name}: {} ok, p50 {} us, p99 {} us",
            line["ok"], line["p50_us"], line["p99_us"]
        ));
        drop(process);
    }
    Ok(seen.join("; "))
}

fn one(stage: &Stage, args: &str) -> Result<Value> {
    stage.mesh.net.call_one(&stage.sleep, args)
}
