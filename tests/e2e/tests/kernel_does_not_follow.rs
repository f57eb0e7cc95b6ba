//! An agent that cannot put its programs in the place of those that ask another layout of maps: it decides by a new configuration
//! and does not acknowledge it, since the kernel goes by the old one; and does so as soon as it can.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tramline_harness::agent::Version;
use tramline_harness::mesh::{INSIDE, Mesh};
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn what_the_kernel_does_not_follow_is_not_acknowledged() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("not-followed", 1)?;
    let server = mesh.pod(1, "server")?;
    let outsider = mesh.outsider(1, "outsider")?;
    mesh.start(&[&server])?;
    let _served = mesh.net.serve(&server, "server --port 5000")?;
    let answer = || {
        let args = format!("client --to {} --send hello --timeout-ms 2000", server.at4(5000));
        let report = mesh.net.call_one(&outsider, &args)?;
        Ok::<_, anyhow::Error>(report["received"] == "hello")
    };
    ensure!(answer()?, "plaintext is taken");
    let links = links(&mesh)?;
    let connect = links
        .iter()
        .find(|path| path.to_string_lossy().contains("connect6"))
        .with_context(|| format!("no link in {links:?}"))?;
    // The next one finds no configuration at first, and leaves the node's programs as they are.
    mesh.agents[0].kill()?;
    for kept in fs::read_dir(mesh.net.run().dir().join("ca"))? {
        let kept = kept?.path();
        if kept.to_string_lossy().contains("last-good") {
            fs::remove_file(kept)?;
        }
    }
    mesh.config.write("broken", "kind: [")?;
    mesh.agents[0].version = Version::Next;
    mesh.agents[0].begin(&mesh.net)?;
    let agent = &mesh.agents[0];
    let says = |what: &str| {
        wait::until(&format!("the agent to say {what:?}"), SOON, || {
            Ok(agent.words().contains(what).then_some(()))
        })
    };
    says("no configuration is in force")?;
    // Something that is no link is in the way.
    fs::remove_file(connect)?;
    fs::create_dir(connect)?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config.remove("broken")?;
    says("the kernel does not follow the configuration")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(agent.generation()? == 0, "acknowledged");
    ensure!(agent.get("/readyz")?.status != 200, "ready");
    fs::remove_dir(connect)?;
    wait::until("the configuration to be acknowledged", SOON, || {
        Ok((agent.generation()? > 0).then_some(()))
    })?;
    ensure!(!answer()?, "acknowledged, and plaintext is taken");
    Ok(())
}

/// The pinned links of the node.
fn links(mesh: &Mesh) -> Result<Vec<PathBuf>> {
    let mut directories = vec![mesh.net.run().dir().join("bpf").join(&mesh.agents[0].node().name)];
    let mut links = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if directory.ends_with("links") {
                links.push(entry.path());
            }
        }
    }
    Ok(links)
}
