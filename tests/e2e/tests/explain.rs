//! What `tramline explain` says of a connection is what the connection meets: let in, refused, not captured.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh, OUTSIDE, principal};
use tramline_harness::net::Pod;

const PORT: u16 = 5000;

/// One connection and what is expected to be said of it.
struct Row<'a> {
    from: (&'a Pod, &'static str),
    to: (&'a Pod, &'a str),
    captured: &'static str,
    path: &'static str,
    verdict: &'static str,
    reason: &'static str,
}

#[test]
fn explain_says_what_a_connection_meets() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("explain", 2)?;
    let friend = mesh.pod(1, "friend")?;
    let stranger = mesh.pod(1, "stranger")?;
    let near = mesh.pod_as(1, "near", "near", "server")?;
    let far = mesh.pod_as(2, "far", "far", "server")?;
    let open = mesh.pod(2, "open")?;
    let outsider = mesh.outsider(1, "outsider")?;
    // Enrolled, and keeps what it dials on this port out of the mesh.
    let picky = mesh.net.pod(1, "picky")?;
    let exclude = [("tramline.dev/exclude-outbound-ports", "5000")];
    mesh.config.pod_with(&picky, INSIDE, "picky", "picky", &exclude)?;
    let (vip, _) = mesh.service("server", 1, 80, PORT)?;
    mesh.config
        .policy(INSIDE, "friends-only", "server", "ALLOW", &[&principal("friend")])?;
    mesh.start(&[&friend, &stranger, &near, &far, &open, &picky])?;
    let _servers = [
        mesh.net.serve(&near, "server --port 5000")?,
        mesh.net.serve(&far, "server --port 5000")?,
        mesh.net.serve(&open, "server --port 5000")?,
    ];

    let row = |from, to, captured, path, verdict, reason| Row {
        from,
        to,
        captured,
        path,
        verdict,
        reason,
    };
    let (inside, outside) = (INSIDE, OUTSIDE);
    let rows = [
        row(
            (&friend, inside),
            (&near, "pod"),
            "captured",
            "same_node",
            "allow",
            "ok",
        ),
        row(
            (&friend, inside),
            (&far, "pod"),
            "captured",
            "hbone",
            "allow",
            "ok",
        ),
        row(
            (&friend, inside),
            (&far, "service"),
            "captured",
            "",
            "allow",
            "ok",
        ),
        row(
            (&stranger, inside),
            (&near, "pod"),
            "captured",
            "same_node",
            "deny",
            "policy_denied",
        ),
        row(
            (&stranger, inside),
            (&far, "pod"),
            "captured",
            "hbone",
            "deny",
            "policy_denied",
        ),
        row(
            (&stranger, inside),
            (&far, "service"),
            "captured",
            "",
            "deny",
            "policy_denied",
        ),
        row(
            (&outsider, outside),
            (&open, "pod"),
            "not_labelled",
            "plaintext",
            "allow",
            "ok",
        ),
        row(
            (&outsider, outside),
            (&far, "pod"),
            "not_labelled",
            "plaintext",
            "deny",
            "policy_denied",
        ),
        row(
            (&picky, inside),
            (&open, "pod"),
            "excluded_port",
            "plaintext",
            "allow",
            "ok",
        ),
    ];
    for row in &rows {
        check(&mesh, row, vip.to_string().as_str())?;
    }

    mesh.change(|config| config.peer_authentication(INSIDE, "STRICT"))?;
    let strict = [
        row(
            (&friend, inside),
            (&open, "pod"),
            "captured",
            "hbone",
            "allow",
            "ok",
        ),
        row(
            (&outsider, outside),
            (&open, "pod"),
            "not_labelled",
            "plaintext",
            "deny",
            "mtls_required",
        ),
        row(
            (&picky, inside),
            (&open, "pod"),
            "excluded_port",
            "plaintext",
            "deny",
            "mtls_required",
        ),
    ];
    for row in &strict {
        check(&mesh, row, "")?;
    }
    captured_or_why(&mesh)
}

/// Asks the agents of both ends, then tries.
fn check(mesh: &Mesh, row: &Row<'_>, vip: &str) -> Result<()> {
    let (from, namespace) = row.from;
    let (server, how) = row.to;
    let (asked, dialled) = match how {
        "service" => (format!("server.{INSIDE}:80"), format!("{vip}:80")),
        _ => (
            format!("{INSIDE}/{}:{PORT}", server.name),
            server.at4(PORT).to_string(),
        ),
    };
    let question = format!("explain --from {namespace}/{} --to {asked}", from.name);
    for agent in [mesh.agent_of(from)?, mesh.agent_of(server)?] {
        let (code, said) = agent.ask(&question)?;
        let context = || format!("{question}, asked of {}: {said:#}", agent.node().name);
        ensure!(said["capture"]["code"] == row.captured, "capture: {}", context());
        ensure!(said["verdict"] == row.verdict, "verdict: {}", context());
        ensure!(said["reason"] == row.reason, "reason: {}", context());
        ensure!(
            (code == 0) == (row.verdict == "allow"),
            "exit code {code}: {}",
            context()
        );
        let paths: Vec<_> = endpoints(&said)
            .filter(|step| step["left_out"].is_null())
            .collect();
        ensure!(!paths.is_empty(), "no endpoint: {}", context());
        ensure!(
            row.path.is_empty() || paths.iter().all(|step| step["path"] == row.path),
            "path: {}",
            context()
        );
        if row.reason == "policy_denied" {
            let policies = |step: &&Value| step["policy"]["policies"].as_array().cloned();
            let looked_at = paths.iter().filter_map(policies).flatten();
            let named: Vec<_> = looked_at.map(|step| step["policy"].clone()).collect();
            ensure!(
                !named.is_empty() && named.iter().all(|name| *name == format!("{INSIDE}/friends-only")),
                "policies: {}",
                context()
            );
        }
    }
    let line = mesh
        .net
        .call_one(from, &format!("client --to {dialled} --send is-it-so"))
        .with_context(|| question.clone())?;
    let answered = line["connect"] == "ok" && line["received"] == "is-it-so";
    ensure!(
        answered == (row.verdict == "allow"),
        "{question} says {}, the connection met: {line}",
        row.verdict
    );
    Ok(())
}

fn endpoints(said: &Value) -> impl Iterator<Item = &Value> {
    said["endpoints"].as_array().into_iter().flatten()
}

/// The question about a pod alone; and each page for people fits on a terminal.
fn captured_or_why(mesh: &Mesh) -> Result<()> {
    let agent = mesh.agent(1)?;
    let (code, said) = agent.ask(&format!("explain --from {INSIDE}/friend"))?;
    ensure!(code == 0 && said["capture"]["captured"] == true, "{said}");
    let (code, said) = agent.ask(&format!("explain --from {OUTSIDE}/outsider"))?;
    ensure!(code == 3 && said["capture"]["code"] == "not_labelled", "{said}");
    for command in [
        "services",
        "services -o wide",
        "workloads",
        "policies",
        "policies -o wide",
        "certificates",
        "top --once",
        "connections",
        &format!("explain --from {OUTSIDE}/outsider"),
        &format!("explain --from {INSIDE}/stranger --to server:80"),
        &format!("explain --from {OUTSIDE}/outsider --to {INSIDE}/open:{PORT}"),
    ] {
        let page = agent.page(command)?;
        let wide = command.contains("wide");
        ensure!(
            wide || page.lines().all(|line| line.chars().count() <= 80),
            "{command}:\n{page}"
        );
        if std::env::var_os("TRAMLINE_SHOW").is_some() {
            show(command, &page);
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "somebody asked to see the pages")]
fn show(command: &str, page: &str) {
    eprintln!("$ tramline {command}\n{page}");
}
