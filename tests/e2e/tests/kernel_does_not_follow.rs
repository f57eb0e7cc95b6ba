//! An agent that cannot put its programs in the place of those that ask another layout of maps: it decides by a new configuration
//! and does not acknowledge it, since the kernel goes by the old one; and does so as soon as it can.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tramline_harness::agent::{Agent, Version};
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
    let answer = |mesh: &Mesh| {
        let args = format!("client --to {} --send hello --timeout-ms 2000", server.at4(5000));
        let report = mesh.net.call_one(&outsider, &args)?;
        Ok::<_, anyhow::Error>(report["received"] == "hello")
    };
    ensure!(answer(&mesh)?, "plaintext is taken");
    let links = links(&mesh)?;
    let connect = links
        .iter()
        .find(|path| path.to_string_lossy().contains("connect6"))
        .with_context(|| format!("no link in {links:?}"))?;
    // It leaves the node's programs as they are.
    begin_without_configuration(&mut mesh, Version::Next)?;
    let agent = &mesh.agents[0];
    // Something that is no link is in the way.
    fs::remove_file(connect)?;
    fs::create_dir(connect)?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config.remove("broken")?;
    says(agent, "the configuration is not acknowledged")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(agent.generation()? == 0, "acknowledged");
    ensure!(agent.get("/readyz")?.status != 200, "ready");
    fs::remove_dir(connect)?;
    wait::until("the configuration to be acknowledged", SOON, || {
        Ok((agent.generation()? > 0).then_some(()))
    })?;
    ensure!(!answer(&mesh)?, "acknowledged, and plaintext is taken");
    Ok(())
}

/// Of a pod that nobody knows, something is left that is no program: what it is for cannot be closed.
#[test]
fn what_an_agent_before_left_and_cannot_be_closed_is_not_acknowledged() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("not-closed", 1)?;
    let server = mesh.pod(1, "server")?;
    mesh.start(&[&server])?;
    let pods = directories(&mesh)?
        .into_iter()
        .find(|directory| directory.ends_with("pods"))
        .context("no directory of pods")?;
    begin_without_configuration(&mut mesh, Version::Present)?;
    let agent = &mesh.agents[0];
    let foreign = pods.join("0000000000000fff");
    fs::create_dir(&foreign)?;
    mesh.config.remove("broken")?;
    says(agent, "what an earlier agent left may hold still")?;
    says(agent, "the configuration is not acknowledged")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(agent.generation()? == 0, "acknowledged");
    ensure!(agent.get("/readyz")?.status != 200, "ready");
    // Nor is it forgotten for a later one that is refused.
    mesh.config.write("broken", "kind: [")?;
    wait::until("the agent to tell of both", SOON, || {
        let said = agent.get("/readyz")?.body;
        let both = said.contains("the directory is refused") && said.contains("is not acknowledged yet");
        Ok(both.then_some(()))
    })?;
    fs::remove_dir(&foreign)?;
    wait::until("the configuration to be acknowledged", SOON, || {
        let ready = agent.get("/readyz?verbose")?;
        let in_force = agent.generation()? > 0 && ready.status == 200;
        Ok((in_force && ready.body.contains("the last good one stays in force")).then_some(()))
    })
}

/// An agent that comes after one that was killed and finds no configuration, until `broken` is removed.
fn begin_without_configuration(mesh: &mut Mesh, version: Version) -> Result<()> {
    mesh.agents[0].kill()?;
    for kept in fs::read_dir(mesh.net.run().dir().join("ca"))? {
        let kept = kept?.path();
        if kept.to_string_lossy().contains("last-good") {
            fs::remove_file(kept)?;
        }
    }
    mesh.config.write("broken", "kind: [")?;
    mesh.agents[0].version = version;
    mesh.agents[0].begin(&mesh.net)?;
    says(&mesh.agents[0], "no configuration is in force")
}

fn says(agent: &Agent, what: &str) -> Result<()> {
    wait::until(&format!("the agent to say {what:?}"), SOON, || {
        Ok(agent.words().contains(what).then_some(()))
    })
}

/// The pinned links of the node.
fn links(mesh: &Mesh) -> Result<Vec<PathBuf>> {
    let mut links = Vec::new();
    for directory in directories(mesh)?.iter().filter(|path| path.ends_with("links")) {
        for entry in fs::read_dir(directory)? {
            links.push(entry?.path());
        }
    }
    Ok(links)
}

/// All directories of pins of the node.
fn directories(mesh: &Mesh) -> Result<Vec<PathBuf>> {
    let mut found = vec![mesh.net.run().dir().join("bpf").join(&mesh.agents[0].node().name)];
    let mut looked = 0;
    while let Some(directory) = found.get(looked) {
        let inside = fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
        for entry in inside {
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        looked += 1;
    }
    Ok(found)
}
