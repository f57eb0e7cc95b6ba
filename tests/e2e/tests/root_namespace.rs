//! Policies of the root namespace hold for the whole mesh, and another one may be that namespace.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_harness::mesh::Mesh;

const ROOT: &str = "mesh-policies";

#[test]
fn policies_of_the_root_namespace_hold_everywhere() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("root", 1)?;
    let client = mesh.pod(1, "client")?;
    let server = mesh.pod(1, "server")?;
    mesh.config.write(
        "policy-nobody",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata:\n  name: nobody\n  namespace: {ROOT}\n\
             spec:\n  action: DENY\n  rules:\n  - {{}}\n"
        ),
    )?;
    mesh.start_with(&[&client, &server], |agent| {
        agent.set("--root-namespace", ROOT);
        Ok(())
    })?;
    let served = mesh.net.serve(&server, "server --port 5000")?;
    let report = mesh
        .net
        .call_one(&client, &format!("client --to {} --send hello", server.at4(5000)))?;
    ensure!(report["received_bytes"] != 5, "it is let in: {report}");
    let line = mesh
        .agent(1)?
        .wait_access(Duration::from_secs(10), |line| line["verdict"] == "deny")?;
    ensure!(line["policy"] == format!("{ROOT}/nobody"), "{line}");
    drop(served);
    Ok(())
}
