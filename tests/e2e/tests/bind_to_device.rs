//! SO_BINDTODEVICE on the interface of the pod: captured all the same.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn bind_to_device() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("bind_to_device")?;
    for to in world.targets4().into_iter().chain(world.targets6()) {
        world.exchange(to, "--device eth0")?;
    }
    Ok(())
}
