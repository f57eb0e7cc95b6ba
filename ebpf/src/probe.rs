//! The kubelet's health checks: plaintext from the node that must reach pods which refuse plaintext.
//!
//! Attached to the kubelet's own cgroup: who is in it is the node's affair, and the node is trusted. The socket is marked
//! here, before its port is chosen; `sockops` then registers the 4-tuple as it does for the agent's deliveries.

use crate::{ctx, ctx::Destination, maps};
use aya_ebpf::programs::SockAddrContext;
use tramline_common::{
    counter::Counter,
    map::{Owned, owned},
};

/// Always lets the connect go on: without memory for the mark the check meets the pod's plaintext rows.
#[inline(always)]
pub(crate) fn connect(ctx: &SockAddrContext, to: Destination) -> i32 {
    // A cgroup named by mistake may have pods below it: no process in a pod's namespace is the kubelet.
    if ctx::is_tcp(ctx)
        && ctx::netns_of_connect(ctx) == ctx::pod()
        && let Some(pod) = maps::local_pod(&to.address)
        && maps::own(
            ctx::connecting_socket(ctx),
            Owned {
                pod,
                role: owned::PROBE,
                reserved: 0,
            },
        )
    {
        maps::count(Counter::Probe);
    }
    1
}
