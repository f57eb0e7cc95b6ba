//! TCP fast open: bytes in the sendmsg that connects are captured, none is lost, none sent twice.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn fast_open() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("fast_open")?;
    for to in world.targets4().into_iter().chain(world.targets6()) {
        world.exchange(to, "--how fast-open")?;
        // The second time the client may have a cookie.
        world.exchange(to, "--how fast-open")?;
    }
    Ok(())
}
