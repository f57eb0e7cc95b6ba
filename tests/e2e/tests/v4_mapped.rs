//! An IPv6 socket that dials a v4-mapped address: captured as the IPv4 connection it is.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn v4_mapped() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("v4_mapped")?;
    for to in world.targets4() {
        let exchange = world.exchange(to, "--mapped")?;
        let shown = exchange.client["peer"].as_str().unwrap_or_default();
        assert!(shown.starts_with("[::ffff:"), "an IPv6 socket shows {shown}");
    }
    Ok(())
}
