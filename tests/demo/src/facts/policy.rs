//! Who may talk to whom.

use anyhow::{Result, ensure};
use tramline_harness::mesh::{INSIDE, identity, principal};

use crate::stage::{PORT, SOON, Stage, text};

/// The same request of the intruder before and after.
pub(crate) fn strict(stage: &mut Stage) -> Result<String> {
    let to = stage.v1.at4(PORT);
    let before = stage.get(&stage.intruder, to, 1, "none")?.remove(0);
    stage.strict()?;
    let mut seen = Vec::new();
    for to in [
        stage.v1.at4(PORT),
        stage.v2.at4(PORT),
        stage.v1.at6(PORT),
        stage.v2.at6(PORT),
    ] {
        let after = stage.try_get(&stage.intruder, to, 1, "none")?.remove(0);
        ensure!(
            after["status"].is_null(),
            "STRICT, but the intruder was answered by {to}: {after}"
        );
        ensure!(
            after["error"] != "timeout",
            "refused, but only by silence: {after}"
        );
        seen.push(format!("{to} {}", text(&after, "error")?));
    }
    stage.get(&stage.sleep, stage.service4(), 4, "none")?;
    Ok(format!(
        "PERMISSIVE: {}; STRICT: {}; sleep is still answered",
        before["status"],
        seen.join(", ")
    ))
}

/// `client` is let in, `sleep` is not.
pub(crate) fn denies(stage: &mut Stage) -> Result<String> {
    let allowed = principal("client");
    stage
        .mesh
        .change(|config| config.policy(INSIDE, "only-client", "helloworld", "ALLOW", &[&allowed]))?;
    stage.get(&stage.client, stage.service4(), 4, "none")?;
    let mut seen = Vec::new();
    for (server, node) in [(&stage.v1, 1), (&stage.v2, 2)] {
        let reports = stage.try_get(&stage.sleep, server.at4(PORT), 1, "none")?;
        let denied = reports
            .iter()
            .all(|report| report["status"].is_null() && report["error"] != "timeout");
        ensure!(denied, "sleep is not allowed, but: {reports:?}");
        let workload = server.name.as_str();
        let line = stage.agent(node)?.wait_access(SOON, |line| {
            line["reason"] == "policy_denied"
                && line["src.identity"] == identity("sleep")
                && line["dst.workload"] == workload
        })?;
        ensure!(line["verdict"] == "deny", "{line}");
        seen.push(format!(
            "{workload}: sleep {}, logged {} {}",
            reports[0]["error"], line["reason"], line["detail"]
        ));
    }
    stage
        .mesh
        .change(|config| config.remove(&format!("authorizationpolicy-{INSIDE}-only-client")))?;
    stage.get(&stage.sleep, stage.service4(), 4, "none")?;
    Ok(format!(
        "client answered 4 of 4; {}; policy removed: sleep answered 4 of 4",
        seen.join("; ")
    ))
}
