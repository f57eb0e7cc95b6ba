//! What a connection costs in memory before a byte moves, apart from the kernel: a budget, so that it grows by decision only.
//!
//! The future of a story is what its task allocates. The relay's own buffers come and go with traffic (`tunnel`), the record
//! has its own test (`observe`).

use crate::{context::Context, inbound, outbound, pods::LocalPod, tunnel::Handshake};
use std::sync::Arc;
use tokio::net::TcpStream;

type Story<F> = fn(Arc<Context>, Arc<LocalPod>, TcpStream) -> F;

fn size_of_future<F>(_: Story<F>) -> usize {
    size_of::<F>()
}

fn size_of_tunnel<F>(_: fn(Arc<Context>, Arc<LocalPod>, TcpStream, Handshake) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_connection_stays_within_its_budget() {
    let sizes = [
        ("outbound", size_of_future(outbound::serve), 5_120),
        ("tunnel accepted", size_of_tunnel(inbound::tunnel), 6_144),
        ("plaintext asked", size_of_future(inbound::plaintext), 4_096),
    ];
    for (story, size, budget) in sizes {
        assert!(size <= budget, "{story}: {size} bytes, budget {budget}");
        assert!(
            size * 4 > budget,
            "{story}: {size} bytes, far below its budget of {budget}: lower it"
        );
    }
}
