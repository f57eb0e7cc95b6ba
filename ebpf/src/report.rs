//! Refusals in the kernel, as events for the agent's access log.

use crate::{ctx, ctx::Destination, ctx::Syn, maps};
use tramline_common::{
    Address, PodId,
    counter::Counter,
    event::{Event, kind},
    map::FlowKey,
    verdict::{Passage, ServiceAt, Verdict, moment},
};

/// A SYN was refused.
#[inline(always)]
pub(crate) fn dropped(pod: PodId, syn: &Syn, why: u32) {
    maps::send(Event {
        pod,
        at_ns: ctx::now_ns(),
        remote: syn.remote,
        local: syn.local,
        kind: why,
        remote_port: syn.remote_port,
        local_port: syn.local_port,
    });
}

/// A connect was refused, because it could not be captured.
#[inline(always)]
pub(crate) fn capture_failed(pod: PodId, to: &Destination) {
    maps::count(Counter::CaptureFailed);
    maps::send(Event {
        pod,
        at_ns: ctx::now_ns(),
        remote: Address { octets: [0; 16] },
        local: to.address,
        kind: kind::CAPTURE_FAILED,
        remote_port: 0,
        local_port: to.port,
    });
}

/// A delivery could not be registered.
#[inline(always)]
pub(crate) fn registry_full(key: &FlowKey) {
    maps::send(Event {
        pod: key.pod,
        at_ns: ctx::now_ns(),
        remote: key.remote,
        local: key.local,
        kind: kind::REGISTRY_FULL,
        remote_port: key.remote_port,
        local_port: key.local_port,
    });
}

/// A connect was refused by a verdict.
#[inline(always)]
pub(crate) fn refused(pod: PodId, to: &Destination, verdict: &Verdict, dialled: ServiceAt) {
    maps::tell_passage(Passage {
        socket: 0,
        source: pod,
        destination: verdict.destination,
        at_ns: ctx::now_ns(),
        began_ns: ctx::now_ns(),
        sent: 0,
        received: 0,
        local: Address { octets: [0; 16] },
        remote: to.address,
        service: dialled,
        moment: moment::REFUSED,
        kind: verdict.kind,
        srtt_us: 0,
        retransmits: 0,
        local_port: 0,
        remote_port: to.port,
        state: 0,
    });
}
