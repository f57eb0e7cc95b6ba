//! A non-blocking connect is captured and ends as one.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn nonblocking() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("nonblocking")?;
    for to in world.targets4().into_iter().chain(world.targets6()) {
        world.exchange(to, "--how nonblocking")?;
    }
    Ok(())
}
