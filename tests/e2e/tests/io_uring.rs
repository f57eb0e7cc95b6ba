//! A connect through io_uring meets the same hooks.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn io_uring() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("io_uring")?;
    for to in world.targets4().into_iter().chain(world.targets6()) {
        world.exchange(to, "--how io-uring")?;
    }
    Ok(())
}
