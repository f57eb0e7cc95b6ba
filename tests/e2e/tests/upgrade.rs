//! Agents are replaced while they carry connections: no new connection fails, none that is open is cut, and nobody
//! gets in who may not.
//!
//! `TRAMLINE_UPGRADE_ROUNDS` sets how often (100 takes a few minutes).

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tramline_e2e::succession::{DRAIN, END, all_are, ask, rounds, under_load};
use tramline_harness::agent::Version;
use tramline_harness::mesh::Mesh;

const ROUNDS: usize = 6;

#[test]
fn upgrade_under_load() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    under_load("upgrade", rounds(ROUNDS)?, |_| Version::Present)
}

#[test]
fn the_old_agent_carries_on_when_its_successor_dies() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("rollback", 2)?;
    let client = mesh.pod(1, "client")?;
    let far = mesh.pod(2, "far")?;
    mesh.start(&[&client, &far])?;
    let _server = mesh.net.serve(&far, "server --port 5000")?;
    let to = far.at4(5000);
    let mut idle = mesh.net.app(&client, &format!("hold --to {to} --count 20"))?;
    idle.wait_event("held", Duration::from_secs(30))?;
    let probe = format!("probe --to {to} --interval-ms 20 --timeout-ms 8000");
    let mut probe = mesh.net.app(&client, &probe)?;

    let old = mesh.agents[0].succeed(&mesh.net, DRAIN)?;
    let mut successor = mesh.agents[0].go_back_to(old)?;
    successor.signal(Signal::SIGKILL)?;
    successor.wait(Duration::from_secs(5))?;
    // The old one answers again where it did before.
    mesh.agents[0].wait_ready()?;
    // It follows the configuration as it did before: a pod that comes now is enrolled.
    let late = mesh.pod(1, "late")?;
    mesh.wait_enrolled(&late)?;
    let answer = mesh
        .net
        .call_one(&late, &format!("client --to {to} --send late"))?;
    ensure!(answer["received"] == "late", "{answer}");
    // And it can be succeeded once more.
    let old = mesh.agents[0].succeed(&mesh.net, DRAIN)?;

    let input = ask(&mut idle)?;
    let checked = idle.wait_event("checked", Duration::from_secs(60))?;
    ensure!(checked["alive"] == 20, "idle connections were cut: {checked}");
    drop(probe.stdin());
    let lines = probe.finish(Duration::from_secs(15))?;
    // The successor took with it what it carried when it was killed: one probe after the other, so one, or two by address.
    // The kernel ends what a killed process held: with RST where bytes were unread, with FIN where not.
    let is_cut = |result: &str| matches!(result, "ECONNRESET" | "UnexpectedEof");
    let cut = lines
        .iter()
        .filter(|line| line["result"].as_str().is_some_and(is_cut))
        .count();
    let asked = all_are(&lines, |result| result == "ok" || is_cut(result))?;
    ensure!(asked > 5 && cut <= 2, "{asked} probes, {cut} cut");
    drop(input);
    idle.finish(Duration::from_secs(30))?;
    old.signal(Signal::SIGTERM)?;
    let mut old = old;
    ensure!(old.wait(END)?.success(), "{}", old.words());
    Ok(())
}
