//! The root is replaced by the steps of docs/IDENTITY.md while connections are opened in both directions between two
//! nodes, each with an authority of its own: no request fails, and what was opened after the steps that replace it lives
//! through the last one.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::authority::{Authority, TrustDir, wait_signs, wait_trusted};
use tramline_harness::load::Load;
use tramline_harness::mesh::{INSIDE, Mesh};

/// The life of a certificate.
const TTL: Duration = Duration::from_secs(10);
/// Between two steps, so that each is met by connections.
const PAUSE: Duration = Duration::from_secs(1);

#[test]
fn a_root_is_replaced_with_overlap_under_load_and_no_request_fails() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("root_rotation", 2)?;
    let here = mesh.pod(1, "here")?;
    let there = mesh.pod(2, "there")?;
    let (service, _) = mesh.service("there", 1, 80, 5000)?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    let hour = Duration::from_secs(3600);
    let (old, new) = (Authority::new("old", hour)?, Authority::new("new", hour)?);
    let files = [
        TrustDir::new(&mesh.net, 1, &old, &[&old])?,
        TrustDir::new(&mesh.net, 2, &old, &[&old])?,
    ];
    mesh.start_with(&[&here, &there], |agent| {
        files[usize::from(agent.node().number) - 1].give_to(agent);
        agent.set("--certificate-ttl", format!("{}s", TTL.as_secs()));
        Ok(())
    })?;
    let _servers = [
        mesh.net.serve(&here, "server --port 5000 --quiet")?,
        mesh.net.serve(&there, "server --port 5000 --quiet")?,
    ];
    let capture = mesh.net.capture()?;
    let mut load = Load::default();
    for to in [there.at4(5000), there.at6(5000), (service, 80).into()] {
        load.add_requests(&mesh.net, &here, to)?;
    }
    load.add_requests(&mesh.net, &there, here.at4(5000))?;
    std::thread::sleep(PAUSE);

    for (node, files) in (1..).zip(&files) {
        files.trust(&[&old, &new])?;
        wait_trusted(&mesh, node, &["CN=new", "CN=old"])?;
    }
    for (node, files) in (1..).zip(&files) {
        std::thread::sleep(PAUSE);
        files.sign_with(&new)?;
        wait_signs(&mesh, node, "CN=new")?;
    }
    // A tunnel takes no new streams once half of what was left of a certificate of either end has passed.
    std::thread::sleep(TTL / 2 + PAUSE);
    let mut late = Load::default();
    late.add(&mesh.net, &here, there.at4(5000))?;
    late.add(&mesh.net, &there, here.at6(5000))?;
    for (node, files) in (1..).zip(&files) {
        files.trust(&[&new])?;
        wait_trusted(&mesh, node, &["CN=new"])?;
    }
    std::thread::sleep(2 * PAUSE);

    let (done, late) = (load.finish()?, late.finish()?);
    ensure!(done.requests > 500 && late.requests > 50, "{done:?} {late:?}");
    let seen = capture.finish()?.tls_only(15_008)?;
    ensure!(seen.application_data > 0, "{seen:?}");
    Ok(())
}
