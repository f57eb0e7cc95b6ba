//! A policy annotated `istio.io/dry-run` changes no decision; the access log, the metrics and `explain` say what it would.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh, identity, principal};

const SOON: Duration = Duration::from_secs(10);

/// A policy for the pods with label `app: server`.
fn policy(name: &str, action: &str, account: &str) -> String {
    let principal = principal(account);
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata:\n  name: {name}\n  namespace: {INSIDE}\n  annotations:\n    istio.io/dry-run: \"true\"\n\
         spec:\n  action: {action}\n  selector:\n    matchLabels:\n      app: server\n  \
         rules:\n  - from:\n    - source:\n        principals:\n        - {principal}\n"
    )
}

#[test]
fn dry_run() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("dry_run", 2)?;
    let friend = mesh.pod(1, "friend")?;
    let stranger = mesh.pod(1, "stranger")?;
    let far = mesh.pod_as(2, "far", "far", "server")?;
    let near = mesh.pod_as(1, "near", "near", "server")?;
    // Enforced: nothing. On trial: only the friend is let in.
    mesh.config
        .write("trial-allow", &policy("trial-allow", "ALLOW", "friend"))?;
    mesh.start(&[&friend, &stranger, &far, &near])?;
    let _servers = [
        mesh.net.serve(&far, "server --port 5000")?,
        mesh.net.serve(&near, "server --port 5000")?,
    ];
    let inbound = |mesh: &Mesh, node, account: &str, to: String, round: &str| {
        let (source, bytes) = (identity(account), round.len() as u64);
        mesh.agent(node)?.wait_access(SOON, move |line: &Value| {
            line["direction"] == "inbound"
                && line["src.identity"] == source
                && line["dst.addr"] == to
                && line["bytes_recv"] == bytes
        })
    };

    for (to, node) in [(far.at4(5000), 2), (near.at4(5000), 1)] {
        for (pod, would_be, by, detail) in [
            (&friend, "allow", Value::from("sample/trial-allow"), "rule 0"),
            (
                &stranger,
                "deny",
                Value::Null,
                "no rule of the ALLOW policies matches",
            ),
        ] {
            let line = mesh
                .net
                .call_one(pod, &format!("client --to {to} --send on-trial"))?;
            assert_eq!(line["received"], "on-trial", "{} to {to}: {line}", pod.name);
            let line = inbound(&mesh, node, &pod.name, to.to_string(), "on-trial")?;
            assert_eq!(line["verdict"], "allow", "{line}");
            assert_eq!(line["dry_run"], would_be, "{line}");
            assert_eq!(line["dry_run_policy"], by, "{line}");
            assert!(
                line["dry_run_detail"]
                    .as_str()
                    .is_some_and(|text| text.contains(detail)),
                "{line}"
            );
        }
    }

    // Changed while it runs: now by a DENY policy, which has a name.
    mesh.change(|config| config.write("trial-allow", &policy("trial-deny", "DENY", "stranger")))?;
    for (to, node) in [(far.at4(5000), 2), (near.at4(5000), 1)] {
        let line = mesh
            .net
            .call_one(&stranger, &format!("client --to {to} --send second"))?;
        assert_eq!(line["received"], "second", "{line}");
        let line = inbound(&mesh, node, "stranger", to.to_string(), "second")?;
        assert_eq!(line["verdict"], "allow", "{line}");
        assert_eq!(line["dry_run"], "deny", "{line}");
        assert_eq!(line["dry_run_policy"], "sample/trial-deny", "{line}");
        let labels = [
            "verdict=\"allow\"",
            "dry_run=\"deny\"",
            "policy=\"sample/trial-deny\"",
        ];
        let counted = mesh.agent(node)?.metric("tramline_dry_run_total", &labels)?;
        assert!((counted - 1.0).abs() < 0.5, "node {node}: {counted}");
        let question = format!("explain --from {INSIDE}/stranger --to {to}");
        let page = mesh.agent(1)?.page(&question)?;
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        let said =
            "with the dry-run policies enforced it would be denied by AuthorizationPolicy sample/trial-deny";
        assert!(page.contains(said), "{page}");
    }
    // The client's own side was told nothing, and counts nothing.
    for line in mesh.agent(1)?.access_log()? {
        assert!(
            line["direction"] == "inbound" || line["dry_run"].is_null(),
            "{line}"
        );
    }

    // Without such policies the fields are gone.
    mesh.change(|config| config.remove("trial-allow"))?;
    let to = far.at4(5000);
    mesh.net
        .call_one(&stranger, &format!("client --to {to} --send the-third"))?;
    let line = inbound(&mesh, 2, "stranger", to.to_string(), "the-third")?;
    assert!(line["dry_run"].is_null(), "{line}");
    Ok(())
}
