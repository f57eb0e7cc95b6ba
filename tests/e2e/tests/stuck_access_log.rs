//! Nobody reads the access log: connections go on as if there were none, and whoever reads it later finds whole lines.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::world::World;

/// More lines than a pipe takes, on node one alone.
const CONNECTIONS: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn stuck_access_log() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::without_agents("stuck_access_log", "server --port 5000 --quiet")?;
    let net = &world.mesh.net;
    let logs = net.run().dir().join("logs");
    let fifo = logs.join(format!("{}-access.log", net.node(1)?.name));
    std::fs::create_dir_all(&logs)?;
    ensure!(Command::new("mkfifo").arg(&fifo).status()?.success());
    // Both ends: a reader that does not read. Closing it at the end ends the one that does.
    let held = OpenOptions::new().read(true).write(true).open(&fifo)?;
    world.mesh.start(&[&world.client, &world.near, &world.far])?;
    let storm = format!(
        "storm --to {} --count {CONNECTIONS} --concurrency 4",
        world.far.at4(5000)
    );
    let process = world.mesh.net.app(&world.client, &storm)?;
    let line = process.finish(LIMIT)?.pop().context("no output")?;
    ensure!(line["ok"] == CONNECTIONS && line["failed"] == 0, "{line}");
    let agent = world.mesh.agent(1)?;
    let written = || agent.metric("tramline_access_log_written_total", &[]);
    let stuck = written()?;
    ensure!(stuck < 300.0, "{stuck} lines were written though nobody read");

    let (lines, read) = channel();
    let mut reader = held.try_clone()?;
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while let Ok(bytes) = reader.read(&mut buffer) {
            text.extend_from_slice(&buffer[..bytes]);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if lines.send(line).is_err() {
                    return;
                }
            }
        }
    });
    for number in 0..CONNECTIONS {
        let line = read
            .recv_timeout(LIMIT)
            .with_context(|| format!("line {number}"))?;
        let line: Value = serde_json::from_slice(&line)?;
        ensure!(line["verdict"] == "allow", "{line}");
    }
    ensure!(agent.metric("tramline_access_log_dropped_total", &[])? < 0.5);
    Ok(())
}
