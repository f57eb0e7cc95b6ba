//! Two pods on one node: captured, both identities known, nothing on the link between the nodes.

use anyhow::Result;
use tramline_e2e::world::{MARKER, PORT, World};

#[test]
fn same_node() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut world = World::new("same_node")?;
    let capture = world.mesh.net.capture()?;
    let to = world.near.at4(PORT);
    for _ in 0..10 {
        world.exchange(to, "")?;
    }
    let line = world
        .mesh
        .net
        .call_one(&world.client, &format!("client --to {to} --send-bytes 60000"))?;
    assert_eq!(line["received_bytes"], 60_000, "{line}");
    assert_eq!(line["end"], "eof", "{line}");
    let trace = capture.finish()?;
    assert!(
        !trace.contains(MARKER.as_bytes()),
        "same-node traffic has no business on the link"
    );
    Ok(())
}
