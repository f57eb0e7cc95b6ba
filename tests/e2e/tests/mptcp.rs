//! A client that speaks MPTCP is captured like any other.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn mptcp() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("mptcp")?;
    for to in world.targets4().into_iter().chain(world.targets6()) {
        world.exchange(to, "--mptcp")?;
    }
    Ok(())
}
