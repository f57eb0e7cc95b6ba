//! Outbound: a connect of an enrolled pod gets the mark that routes its SYN to the pod's own loopback, where
//! `steer` hands it to the agent. No address is rewritten (but for a Service that the kernel resolves by itself), nothing is stored.

use crate::{
    ctx,
    ctx::Destination,
    maps, report,
    verdict::{self, Answer},
};
use aya_ebpf::programs::SockAddrContext;
use tramline_common::{CAPTURE_MARK, CAPTURE_MASK, PodId, counter::Counter, map::direction, service};

const GO_ON: i32 = 1;
const REFUSE: i32 = 0;

/// Decides about one connect; `redirect` sends it to another address of the same family.
#[inline(always)]
pub(crate) fn connect(
    ctx: &SockAddrContext,
    to: Destination,
    redirect: impl Fn(&SockAddrContext, &Destination) -> bool,
) -> i32 {
    if !ctx::is_tcp(ctx) {
        return GO_ON;
    }
    maps::count(Counter::Seen);
    let pod = ctx::netns_of_connect(ctx);
    if !maps::is_enrolled(pod) {
        return GO_ON;
    }
    // The agent's own sockets live in pods' namespaces: known by what the agent wrote on them, not by a mark.
    if maps::owned(ctx::connecting_socket(ctx)).is_some() {
        return GO_ON;
    }
    if is_excluded(pod, &to) {
        maps::unpick(ctx::connecting_socket(ctx));
        maps::count(Counter::Excluded);
        // The same socket may have been captured by an earlier connect that failed.
        return if ctx::mark(ctx) & CAPTURE_MASK == CAPTURE_MARK && !ctx::set_mark(ctx, 0) {
            REFUSE
        } else {
            GO_ON
        };
    }
    let mark = match verdict::ask(ctx, pod, &to, redirect) {
        Answer::Pass => return GO_ON,
        Answer::Refuse => return REFUSE,
        Answer::Agent(Some(endpoint)) => service::picking(endpoint),
        Answer::Agent(None) => CAPTURE_MARK,
    };
    // A socket bound to a device would not find the route to loopback and leave in plaintext.
    if ctx::bound_device(ctx) != 0 {
        if !ctx::unbind_device(ctx) {
            report::capture_failed(pod, &to);
            return REFUSE;
        }
        maps::count(Counter::DeviceUnbound);
    }
    if !ctx::set_mark(ctx, mark) {
        report::capture_failed(pod, &to);
        return REFUSE;
    }
    diagnose!(
        ctx,
        "captured a connect to {:i} port {}",
        to.address.octets,
        to.port
    );
    maps::count(Counter::Captured);
    GO_ON
}

#[inline(always)]
fn is_excluded(pod: PodId, to: &Destination) -> bool {
    to.address.is_never_captured()
        || maps::is_pod_address(pod, &to.address)
        || maps::is_port_excluded(pod, to.port, direction::OUTBOUND)
        || maps::is_range_excluded(pod, &to.address)
}
