//! The main job.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::stage::{Stage, ip, text};

/// Enrolment, as the agents tell it.
pub(crate) fn enrolled(stage: &mut Stage) -> Result<String> {
    let mut seen = Vec::new();
    for node in [1, 2] {
        let agent = stage.agent(node)?;
        let ready = agent.get("/readyz")?.status;
        ensure!(ready == 200, "node{node}: /readyz answers {ready}");
        let enrolled = agent.cli("status")?["enrolled"]
            .as_u64()
            .context("no count of enrolled pods")?;
        ensure!(enrolled == 2, "node{node} has enrolled {enrolled} pods, not 2");
        seen.push(format!("node{node}: /readyz {ready}, {enrolled} pods enrolled"));
    }
    Ok(seen.join("; "))
}

/// HTTP by the Service address, which has no route anywhere.
pub(crate) fn answered(stage: &mut Stage) -> Result<String> {
    let report = stage.get(&stage.sleep, stage.service4(), 1, "none")?.remove(0);
    let body = text(&report, "body")?.trim();
    ensure!(body.starts_with("Hello version: v"), "the answer is {body:?}");
    Ok(format!(
        "sleep -> http://{}/hello: {} \"{body}\" in {} us",
        stage.service4(),
        report["status"],
        report["us"]
    ))
}

/// What the client's socket says.
pub(crate) fn peer_is_service(stage: &mut Stage) -> Result<String> {
    let report = stage.get(&stage.sleep, stage.service4(), 1, "none")?.remove(0);
    let (peer, local) = (text(&report, "peer")?, text(&report, "local")?);
    ensure!(peer == stage.service4().to_string(), "getpeername says {peer}");
    ensure!(
        ip(&report, "local")? == stage.sleep.v4,
        "getsockname says {local}"
    );
    Ok(format!(
        "getpeername {peer}, getsockname {local} (the pod's own address)"
    ))
}

/// What the server's socket says.
pub(crate) fn server_sees_client(stage: &mut Stage) -> Result<String> {
    let mut seen = Vec::new();
    for (from, server) in [
        (&stage.sleep, &stage.v1),
        (&stage.sleep, &stage.v2),
        (&stage.client, &stage.v1),
        (&stage.client, &stage.v2),
    ] {
        let report = stage
            .get(from, server.at4(crate::stage::PORT), 1, "none")?
            .remove(0);
        let saw = ip(&report, "server_saw")?;
        ensure!(
            saw == from.v4,
            "{} ({}) is seen as {saw} by {}",
            from.name,
            from.v4,
            server.name
        );
        seen.push(format!(
            "{} saw {} ({})",
            server.name,
            text(&report, "server_saw")?,
            from.name
        ));
    }
    Ok(seen.join("; "))
}

/// Load balancing per connection.
pub(crate) fn spread(stage: &mut Stage) -> Result<String> {
    const REQUESTS: u32 = 60;
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for report in stage.get(&stage.sleep, stage.service4(), REQUESTS, "none")? {
        let version = text(&report, "body")?
            .split([' ', ','])
            .nth(2)
            .unwrap_or_default()
            .to_owned();
        *seen.entry(version).or_default() += 1;
    }
    // Fewer than 10 of 60 by a fair draw happens once in 50 million runs.
    for version in ["v1", "v2"] {
        let count = seen.get(version).copied().unwrap_or(0);
        ensure!(count >= 10, "{version} got {count} of {REQUESTS}: {seen:?}");
    }
    Ok(format!("{REQUESTS} requests: {seen:?}"))
}
