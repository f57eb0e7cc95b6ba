//! Two pods on two nodes: TLS and nothing else on the link, and both agents name both identities.

use std::time::Duration;

use anyhow::Result;
use tramline_e2e::world::{MARKER, World};
use tramline_harness::mesh::identity;

#[test]
fn cross_node() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("cross_node")?;
    let capture = world.mesh.net.capture()?;
    let [_, pod, service] = world.targets4();
    for to in [pod, service] {
        let exchange = world.exchange(to, "")?;
        let client = exchange.local.ip().to_string();
        let inbound = world.mesh.agent(2)?.wait_access(Duration::from_secs(5), |line| {
            line["direction"] == "inbound"
                && line["src.addr"].as_str().is_some_and(|a| a.starts_with(&client))
                && line["dst.identity"] == identity("far")
        })?;
        assert_eq!(inbound["src.identity"], identity("client"), "{inbound}");
        assert_eq!(inbound["verdict"], "allow", "{inbound}");
    }
    let trace = capture.finish()?;
    let seen = trace.tls_only(15_008)?;
    assert!(seen.application_data > 0, "nothing crossed the link: {seen:?}");
    assert!(
        !trace.contains(MARKER.as_bytes()),
        "the marker crossed the link in the clear"
    );
    Ok(())
}
