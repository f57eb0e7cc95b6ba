//! Clients with SO_REUSEPORT share one local port towards several destinations.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn reuse_port() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("reuse_port")?;
    let own = world.client.at4(43_000);
    for to in world.targets4() {
        // SO_REUSEADDR as well: the port is in TIME_WAIT from the destination before.
        let exchange = world.exchange(to, &format!("--bind {own} --reuse-port --reuse-address"))?;
        assert_eq!(exchange.local, own, "towards {to}");
    }
    Ok(())
}
