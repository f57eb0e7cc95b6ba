//! `getpeername`: who dialled a Service is shown the Service, whichever endpoint the kernel led the connection to.

use crate::{
    ctx::{self, Destination},
    maps,
};
use aya_ebpf::programs::SockAddrContext;
use tramline_common::{PodId, map::FlowKey, verdict::ServiceAt};

/// Answers one question for the other end's name.
#[inline(always)]
pub(crate) fn answer(
    ctx: &SockAddrContext,
    peer: Destination,
    rename: impl Fn(&SockAddrContext, &Destination) -> bool,
) -> i32 {
    if ctx::is_tcp(ctx) {
        let pod = ctx::netns_of_connect(ctx);
        if maps::is_enrolled(pod)
            && let Some(dialled) = dialled(ctx, pod, &peer)
            && dialled.is_some()
        {
            rename(
                ctx,
                &Destination {
                    address: dialled.address,
                    port: dialled.port,
                },
            );
        }
    }
    1
}

/// The Service that the connection was dialled by.
#[inline(always)]
fn dialled(ctx: &SockAddrContext, pod: PodId, peer: &Destination) -> Option<ServiceAt> {
    let socket = ctx::connecting_socket(ctx);
    if let Some(picked) = maps::picked(socket) {
        return Some(picked.service);
    }
    // The socket that an application holds of an MPTCP connection is not the one that was connected: it has the same
    // addresses, but no storage.
    if !ctx::is_mptcp(ctx) {
        return None;
    }
    let own = ctx::own_end(ctx);
    let passed = match maps::local_pod(&peer.address) {
        Some(destination) => maps::direct(&FlowKey {
            pod: destination,
            remote: own.address,
            local: peer.address,
            remote_port: own.port,
            local_port: peer.port,
            reserved: 0,
        })?,
        None => maps::outside(&FlowKey {
            pod,
            remote: peer.address,
            local: own.address,
            remote_port: peer.port,
            local_port: own.port,
            reserved: 0,
        })?,
    };
    Some(passed.service)
}
