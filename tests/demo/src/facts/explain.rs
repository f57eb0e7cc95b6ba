//! What the agent says would happen, beside what happens.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, OUTSIDE, principal};
use tramline_harness::net::Pod;

use crate::stage::{PORT, Stage};

/// A connection that is let in, one that a policy refuses, one that is not captured: each explained by the agent of its
/// node, then tried.
pub(crate) fn explained(stage: &mut Stage) -> Result<String> {
    let allowed = principal("client");
    stage
        .mesh
        .change(|config| config.policy(INSIDE, "only-client", "helloworld", "ALLOW", &[&allowed]))?;
    let (client, sleep, intruder) = (&stage.client, &stage.sleep, &stage.intruder);
    let service = format!("helloworld.{INSIDE}:{PORT}");
    let pod = format!("{INSIDE}/{}:{PORT}", stage.v1.name);
    let mut seen = Vec::new();
    for (from, namespace, to, verdict, reason, captured) in [
        (client, INSIDE, &service, "allow", "ok", "captured"),
        (sleep, INSIDE, &service, "deny", "policy_denied", "captured"),
        (intruder, OUTSIDE, &pod, "deny", "mtls_required", "not_labelled"),
    ] {
        let question = format!("explain --from {namespace}/{} --to {to}", from.name);
        let (code, said) = stage.mesh.agent_of(from)?.ask(&question)?;
        ensure!(
            said["verdict"] == verdict && said["reason"] == reason && said["capture"]["code"] == captured,
            "{question}: {said}"
        );
        ensure!(
            (code == 0) == (verdict == "allow"),
            "{question}: exit code {code}"
        );
        let answered = tried(stage, from, to == &pod)?;
        ensure!(
            answered == (verdict == "allow"),
            "{question} says {verdict}, but answered: {answered}"
        );
        let looked_at = policies(&said);
        ensure!(
            verdict == "allow" || reason != "policy_denied" || looked_at.contains("only-client"),
            "{question} does not name the policy: {said}"
        );
        let text = said["text"].as_str().context("no text")?;
        seen.push(format!(
            "{} -> {to}: {verdict} ({reason}, {captured}; {text}); tried: {}",
            from.name,
            if answered { "answered" } else { "refused" }
        ));
    }
    stage
        .mesh
        .change(|config| config.remove(&format!("authorizationpolicy-{INSIDE}-only-client")))?;
    Ok(seen.join("; "))
}

/// The names of the policies that were looked at.
fn policies(said: &Value) -> String {
    let endpoints = said["endpoints"].as_array().into_iter().flatten();
    let policies = endpoints.filter_map(|endpoint| endpoint["policy"]["policies"].as_array());
    let names = policies.flatten().filter_map(|policy| policy["policy"].as_str());
    names.collect::<Vec<_>>().join(" ")
}

fn tried(stage: &Stage, from: &Pod, pod: bool) -> Result<bool> {
    let to = if pod { stage.v1.at4(PORT) } else { stage.service4() };
    // Several, since a Service has several endpoints.
    let reports = stage.try_get(from, to, 4, "none")?;
    let answered = reports.iter().filter(|report| report["status"] == 200).count();
    ensure!(
        answered == 0 || answered == 4,
        "{answered} of 4 requests of {} answered: {reports:?}",
        from.name
    );
    Ok(answered == 4)
}
