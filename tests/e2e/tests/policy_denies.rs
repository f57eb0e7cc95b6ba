//! An AuthorizationPolicy lets one service account in and not the other; the log names the reason, and not one byte of
//! the denied reaches the application.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh, identity, principal};

#[test]
fn policy_denies() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("policy_denies", 2)?;
    let friend = mesh.pod(1, "friend")?;
    let stranger = mesh.pod(1, "stranger")?;
    let far = mesh.pod_as(2, "far", "far", "server")?;
    let near = mesh.pod_as(1, "near", "near", "server")?;
    mesh.config
        .policy(INSIDE, "friends-only", "server", "ALLOW", &[&principal("friend")])?;
    mesh.start(&[&friend, &stranger, &far, &near])?;
    let servers = [
        mesh.net.serve(&far, "server --port 5000")?,
        mesh.net.serve(&near, "server --port 5000")?,
    ];
    for (to, node) in [
        (far.at4(5000), 2),
        (near.at4(5000), 1),
        (far.at6(5000), 2),
        (near.at6(5000), 1),
    ] {
        let line = mesh
            .net
            .call_one(&friend, &format!("client --to {to} --send let-me-in"))?;
        assert_eq!(line["received"], "let-me-in", "the friend to {to}: {line}");
        let line = mesh
            .net
            .call_one(&stranger, &format!("client --to {to} --send do-let-me-in"))?;
        assert!(
            line["connect"] != "ok" || line["received_bytes"] == 0,
            "the stranger to {to}: {line}"
        );
        assert!(line["end"] != "timeout", "a denial must be prompt: {line}");
        let own = if to.is_ipv4() {
            stranger.v4.to_string()
        } else {
            format!("[{}]", stranger.v6)
        };
        // A denial is one at both ends, and one id joins the two lines.
        let denied = |direction: &'static str| {
            let own = own.clone();
            move |line: &Value| {
                line["reason"] == "policy_denied"
                    && line["direction"] == direction
                    && line["src.identity"] == identity("stranger")
                    && line["dst.original"] == to.to_string()
                    && line["src.addr"].as_str().is_some_and(|a| a.starts_with(&own))
            }
        };
        let limit = Duration::from_secs(5);
        let inbound = mesh.agent(node)?.wait_access(limit, denied("inbound"))?;
        let outbound = mesh.agent(1)?.wait_access(limit, denied("outbound"))?;
        for line in [&inbound, &outbound] {
            assert_eq!(line["verdict"], "deny", "{line}");
            assert_eq!(line["response_flags"], "DENY", "{line}");
        }
        assert!(inbound["trace_id"].is_string(), "{inbound}");
        assert_eq!(inbound["trace_id"], outbound["trace_id"], "{inbound} {outbound}");
    }
    // The stranger's four, of which two cross to node two.
    let own = "source_principal=\"spiffe://cluster.local/ns/sample/sa/stranger\"";
    for (node, reporter, expected) in [
        (1, "source", 4.0),
        (1, "destination", 2.0),
        (2, "destination", 2.0),
    ] {
        let reporter = format!("reporter=\"{reporter}\"");
        let labels = [&*reporter, own, "response_flags=\"DENY\""];
        let failed = mesh
            .agent(node)?
            .metric("istio_tcp_connections_failed_total", &labels)?;
        assert!(
            (failed - expected).abs() < 0.5,
            "node {node} {reporter}: {failed}"
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    for server in &servers {
        let words = server.stdout()?;
        assert!(words.contains("let-me-in"), "{words}");
        assert!(
            !words.contains("do-let-me-in"),
            "bytes of the denied reached the application: {words}"
        );
        let strangers = [format!("\"{}:", stranger.v4), format!("[{}]", stranger.v6)];
        assert!(
            !strangers.iter().any(|s| words.contains(s.as_str())),
            "the denied met the application: {words}"
        );
    }

    // DENY beats ALLOW, and takes effect while everything runs.
    mesh.change(|config| {
        config.policy(
            INSIDE,
            "not-even-friends",
            "server",
            "DENY",
            &[&principal("friend")],
        )
    })?;
    for to in [far.at4(5000), near.at4(5000)] {
        let line = mesh
            .net
            .call_one(&friend, &format!("client --to {to} --send once-more"))?;
        assert!(line["connect"] != "ok" || line["received_bytes"] == 0, "{line}");
    }
    Ok(())
}
