//! Very many connections: what plain TCP manages is managed, nothing is lost, and everything is given back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_e2e::world::{PORT, World};
use tramline_harness::agent::Agent;
use tramline_harness::wait;

const QUIET: &str = "server --port 5000 --quiet";
/// A hundred streams a tunnel, so twenty for two thousand at once; some more opened in the rush.
const TUNNELS: f64 = 40.0;
/// A run of tens of thousands of connections in a debug build.
const LIMIT: Duration = Duration::from_secs(270);

/// What must be back where it was: descriptors, tasks, live connections, entries of the kernel's maps.
#[derive(Debug)]
struct Held {
    descriptors: usize,
    tasks: f64,
    /// Idle tunnels stay in the pool for minutes, each with its descriptor: they are counted, not leaked.
    tunnels: f64,
    connections: u64,
    registry: f64,
}

fn held(agent: &Agent) -> Result<Held> {
    let status = agent.cli("status")?;
    Ok(Held {
        descriptors: agent.descriptors()?,
        tasks: status["details"]["tasks"]
            .as_str()
            .and_then(|tasks| tasks.parse().ok())
            .context("no tasks in the status")?,
        tunnels: agent.metric("tramline_tunnel_connections", &[])?,
        connections: status["connections"]
            .as_u64()
            .context("no connections in the status")?,
        registry: agent.metric("tramline_ebpf_map_entries", &[])?,
    })
}

/// Runs `load` and checks that both agents hold no more afterwards than before.
fn gives_back(world: &mut World, load: impl FnOnce(&mut World) -> Result<()>) -> Result<()> {
    // One connection each, so that pooled tunnels are part of the start.
    for to in world.targets4() {
        world
            .mesh
            .net
            .call_one(&world.client, &format!("client --to {to} --send warm"))?;
    }
    let before = [held(world.mesh.agent(1)?)?, held(world.mesh.agent(2)?)?];
    load(world)?;
    let mut last = String::new();
    let back = wait::until("everything to be given back", Duration::from_secs(20), || {
        let now = [held(world.mesh.agent(1)?)?, held(world.mesh.agent(2)?)?];
        last = format!("before {before:?}\nnow    {now:?}");
        let same = now.iter().zip(&before).all(|(now, before)| {
            // A scrape or two may be open; what leaks per connection counts in thousands.
            let grown = now.descriptors as f64 - before.descriptors as f64 - (now.tunnels - before.tunnels);
            // A tunnel has a handful of tasks at either end.
            let tasks = now.tasks - before.tasks - 4.0 * (now.tunnels - before.tunnels).max(0.0);
            grown <= 8.0
                && tasks <= 8.0
                && now.tunnels <= TUNNELS
                && now.connections <= before.connections
                && now.registry <= before.registry + 16.0
        });
        std::thread::sleep(Duration::from_millis(200));
        Ok(same.then_some(()))
    });
    back.with_context(|| last)
}

fn nothing_lost(line: &Value, count: u64) -> Result<()> {
    ensure!(line["ok"] == count && line["failed"] == 0, "{line}");
    Ok(())
}

fn storm(world: &World, args: &str) -> Result<Value> {
    let process = world.mesh.net.app(&world.client, args)?;
    process.finish(LIMIT)?.pop().context("no output")
}

#[test]
fn sixty_thousand_in_a_row_to_three_destinations() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::with("storm", QUIET)?;
    let to = world.targets4().map(|a| a.to_string()).join(",");
    gives_back(&mut world, |world| {
        nothing_lost(
            &storm(world, &format!("storm --to {to} --count 60000 --concurrency 1"))?,
            60_000,
        )
    })
}

#[test]
fn two_thousand_at_once_through_one_pool() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::with("pool", QUIET)?;
    let to = world.far.at4(PORT);
    gives_back(&mut world, |world| hold(world, &to.to_string(), 2000))
}

#[test]
fn five_thousand_at_once_from_one_address() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::with("many", QUIET)?;
    let to = world.near.at4(PORT);
    gives_back(&mut world, |world| hold(world, &to.to_string(), 5000))
}

/// Opens `count` connections, verifies each, verifies all again a second later, closes them.
fn hold(world: &mut World, to: &str, count: u64) -> Result<()> {
    use std::io::Write;
    let command = format!("hold --to {to} --count {count} --timeout-ms 60000");
    let mut process = world.mesh.net.app(&world.client, &command)?;
    let mut input = process.stdin().context("no stdin")?;
    let opened = process.wait_event("held", Duration::from_secs(90))?;
    ensure!(opened["alive"] == count, "{opened}");
    std::thread::sleep(Duration::from_secs(1));
    writeln!(input, "again")?;
    let checked = process.wait_event("checked", Duration::from_secs(90))?;
    ensure!(checked["alive"] == count, "{checked}");
    drop(input);
    process.finish(Duration::from_secs(30)).map(drop)
}
