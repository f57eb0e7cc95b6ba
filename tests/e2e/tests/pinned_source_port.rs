//! A client that binds its own address and port keeps both.

use anyhow::Result;
use tramline_e2e::world::World;

#[test]
fn pinned_source_port() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("pinned_source_port")?;
    for (index, to) in world.targets4().into_iter().enumerate() {
        let port = 41_000 + u16::try_from(index)?;
        let own = world.client.at4(port);
        let exchange = world.exchange(to, &format!("--bind {own}"))?;
        assert_eq!(exchange.local, own, "towards {to}");
        // Only the port: the address is left to the kernel.
        let any = format!("0.0.0.0:{}", port + 100);
        let exchange = world.exchange(to, &format!("--bind {any}"))?;
        assert_eq!(exchange.local.port(), port + 100, "towards {to}");
    }
    for (index, to) in world.targets6().into_iter().enumerate() {
        let own = world.client.at6(42_000 + u16::try_from(index)?);
        let exchange = world.exchange(to, &format!("--bind {own}"))?;
        assert_eq!(exchange.local, own, "towards {to}");
    }
    Ok(())
}
