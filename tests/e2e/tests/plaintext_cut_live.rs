//! Plaintext that the kernel let in before a policy that forbids it is cut with it; what the mesh carries is not.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::held::Held;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::net::Pod;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn plaintext_is_cut_by_the_change_that_forbids_it() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("plaintext_cut", 2)?;
    let near = mesh.pod(1, "near")?;
    let far = mesh.pod(2, "far")?;
    let server = mesh.pod(1, "server")?;
    let intruder = mesh.outsider(1, "intruder")?;
    let other = mesh.outsider(2, "other")?;
    mesh.start(&[&near, &far, &server])?;
    let _server = mesh.net.serve(&server, "server --port 5000")?;
    let passed = |mesh: &Mesh| {
        mesh.agent(1)?
            .metric("tramline_ebpf_events_total", &["event=\"plaintext_passed\""])
    };
    let held = |mesh: &Mesh, pod: &Pod| -> Result<[Held; 2]> {
        Ok([
            Held::new(&mesh.net, pod, server.at4(5000))?,
            Held::new(&mesh.net, pod, server.at6(5000))?,
        ])
    };
    let alive = |held: [Held; 2]| -> Result<[bool; 2]> {
        let [mut v4, mut v6] = held;
        Ok([v4.is_alive()?, v6.is_alive()?])
    };
    let of_the_mesh = || -> Result<[[Held; 2]; 2]> { Ok([held(&mesh, &near)?, held(&mesh, &far)?]) };

    // By address: one client stays, the other goes.
    let kept = of_the_mesh()?;
    let before = passed(&mesh)?;
    let (goes, stays) = (held(&mesh, &intruder)?, held(&mesh, &other)?);
    ensure!(passed(&mesh)? >= before + 4.0, "the kernel let none of them in");
    let addresses = [intruder.v4.to_string(), intruder.v6.to_string()];
    mesh.change(|config| {
        let rule = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: no-intruder\n  namespace: {INSIDE}\n\
             spec:\n  selector:\n    matchLabels:\n      app: server\n  action: DENY\n  rules:\n  - from:\n    - source:\n        \
             ipBlocks: [\"{}\", \"{}\"]\n",
            addresses[0], addresses[1]
        );
        config.write("no-intruder", &rule)
    })?;
    ensure!(
        alive(goes)? == [false, false],
        "forbidden by address, and goes on"
    );
    ensure!(alive(stays)? == [true, true], "nobody forbids it");
    for ends in kept {
        ensure!(alive(ends)? == [true, true], "the mesh's own connection was cut");
    }
    for address in &addresses {
        let line = mesh.agent(1)?.wait_access(SOON, |line| {
            line["path"] == "plaintext"
                && line["reason"] == "policy_denied"
                && line["src.addr"].to_string().contains(address.as_str())
        })?;
        ensure!(line["policy"].to_string().contains("no-intruder"), "{line}");
    }

    // Mutual TLS is required: no plaintext stays.
    mesh.change(|config| config.remove("no-intruder"))?;
    let kept = of_the_mesh()?;
    let goes = held(&mesh, &other)?;
    mesh.change(|config| config.peer_authentication(INSIDE, "STRICT"))?;
    ensure!(alive(goes)? == [false, false], "plaintext goes on under STRICT");
    for ends in kept {
        ensure!(alive(ends)? == [true, true], "the mesh's own connection was cut");
    }
    mesh.agent(1)?.wait_access(SOON, |line| {
        line["path"] == "plaintext" && line["reason"] == "mtls_required" && line["src.addr"] != "0.0.0.0:0"
    })?;
    Ok(())
}
