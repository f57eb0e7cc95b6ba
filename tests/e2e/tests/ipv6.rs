//! IPv6 pods and Services: captured, addresses true, identities proven.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn ipv6() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("ipv6")?;
    for to in world.targets6() {
        world.exchange(to, "")?;
    }
    Ok(())
}
