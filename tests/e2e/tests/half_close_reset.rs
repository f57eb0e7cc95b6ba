//! Every way to end a connection looks to both applications as it does without a mesh: half-closes, orderly ends and
//! resets, by either side. The plain network is run beside it, so that nothing here is expected from memory.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tramline_harness::mesh::Mesh;
use tramline_harness::net::Pod;

/// Manner of the server, options of the client.
const CASES: [(&str, &str); 9] = [
    ("echo", "--send hello --then shutdown"),
    ("echo", "--send hello --send-bytes 60000 --then shutdown"),
    ("reply-after-eof", "--send hello --then shutdown"),
    ("greet-and-close", "--then read"),
    (
        "greet-and-half-close",
        "--read-first 24 --pause-ms 100 --send late-words --then shutdown",
    ),
    ("source", "--then read"),
    ("reset", "--send hello --then read"),
    ("sink", "--send hello --pause-ms 300 --then close"),
    ("sink", "--send hello --pause-ms 300 --then reset"),
];

/// What both sides saw.
fn observe(mesh: &Mesh, client: &Pod, server: &Pod, case: usize) -> Result<Value> {
    let (manner, options) = CASES[case];
    let port = 6000 + u16::try_from(case)?;
    let mut process = mesh
        .net
        .serve(server, &format!("server --port {port} --manner {manner}"))?;
    let line = mesh
        .net
        .call_one(client, &format!("client --to {} {options}", server.at4(port)))?;
    let closed = process
        .wait_event("closed", Duration::from_secs(8))
        .with_context(|| line.to_string())?;
    Ok(json!({
        "client": [line["connect"], line["end"], line["received_bytes"], line["received"]],
        "server": [closed["end"], closed["bytes"], closed["text"]],
    }))
}

#[test]
fn half_close_and_reset_are_carried_truly() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("half_close_reset", 2)?;
    let plain_client = mesh.outsider(1, "plain-client")?;
    let plain_server = mesh.outsider(2, "plain-server")?;
    let client = mesh.pod(1, "client")?;
    let near = mesh.pod(1, "near")?;
    let far = mesh.pod(2, "far")?;
    mesh.start(&[&client, &near, &far])?;
    let mut differences = Vec::new();
    for (case, what) in CASES.iter().enumerate() {
        let plain = observe(&mesh, &plain_client, &plain_server, case)?;
        for server in [&near, &far] {
            let meshed = observe(&mesh, &client, server, case).unwrap_or_else(|e| json!(format!("{e:#}")));
            if meshed != plain {
                differences.push(format!(
                    "{what:?} to {}:\n  plain {plain}\n  mesh  {meshed}",
                    server.name
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}
