//! Inbound: where a SYN goes. The order of questions is `tramline_common::steer`; this answers them from the
//! maps and carries the answer out. `SK_PASS` is never a fallback: without an agent the SYN is dropped.

use crate::{ctx, ctx::Syn, maps, report, verdict};
use aya_ebpf::{bindings::sk_action, programs::SkLookupContext};
use tramline_common::{
    Address, PodId,
    counter::Counter,
    event::kind,
    map::{FlowKey, direction, listener},
    steer::{Facts, Steer},
};

/// The maps' answers for one SYN.
struct Lookup<'a> {
    pod: PodId,
    syn: &'a Syn,
}

impl Lookup<'_> {
    #[inline(always)]
    fn key(&self) -> FlowKey {
        FlowKey {
            pod: self.pod,
            remote: self.syn.remote,
            local: self.syn.local,
            remote_port: self.syn.remote_port,
            local_port: self.syn.local_port,
            reserved: 0,
        }
    }
}

impl Facts for Lookup<'_> {
    #[inline(always)]
    fn is_from_inside(&self) -> bool {
        self.syn.inside
    }

    #[inline(always)]
    fn is_mine(&self, address: &Address) -> bool {
        maps::is_pod_address(self.pod, address)
    }

    #[inline(always)]
    fn is_registered(&self) -> bool {
        maps::is_registered(&self.key())
    }

    #[inline(always)]
    fn is_direct(&self) -> Option<bool> {
        let passed = maps::direct(&self.key())?;
        let current = verdict::is_current(
            passed.source,
            passed.source_version,
            self.pod,
            passed.destination_version,
        );
        Some(current)
    }

    #[inline(always)]
    fn is_excluded(&self, port: u16) -> bool {
        maps::is_port_excluded(self.pod, port, direction::INBOUND)
    }

    #[inline(always)]
    fn plaintext(&self, port: u16) -> Option<u32> {
        maps::plaintext(self.pod, port)
    }

    #[inline(always)]
    fn is_listening(&self, port: u16) -> bool {
        maps::is_listening(self.pod, port)
    }
}

/// Steers one SYN.
#[inline(always)]
pub(crate) fn steer(ctx: &SkLookupContext) -> u32 {
    let Some(syn) = ctx::syn(ctx) else {
        return sk_action::SK_PASS;
    };
    let pod = ctx::pod();
    let to_agent = |role, counter| {
        if maps::assign_listener(ctx, pod, role, syn.family) {
            pass(counter)
        } else {
            drop(ctx, pod, &syn, Counter::NoListener, kind::NO_LISTENER)
        }
    };
    match tramline_common::steer::steer(
        &syn.remote,
        &syn.local,
        syn.local_port,
        &Lookup { pod, syn: &syn },
    ) {
        Steer::ToItself => sk_action::SK_PASS,
        Steer::Outbound => to_agent(listener::OUTBOUND, Counter::Outbound),
        Steer::Deliver => pass(Counter::Delivered),
        Steer::Direct => pass(Counter::DirectDelivered),
        // The agent's plaintext listener knows it by its 4-tuple.
        Steer::DirectStale => to_agent(listener::PLAINTEXT, Counter::DirectStale),
        Steer::Forged => drop(ctx, pod, &syn, Counter::Forged, kind::FORGED),
        Steer::Hbone => to_agent(listener::HBONE, Counter::Hbone),
        Steer::Excluded => pass(Counter::Excluded),
        Steer::PlaintextPass => pass(Counter::PlaintextPassed),
        Steer::PlaintextAsk => to_agent(listener::PLAINTEXT, Counter::PlaintextAsked),
        Steer::PortClosed => {
            maps::count(Counter::PortClosed);
            sk_action::SK_DROP
        }
        Steer::PlaintextDrop => drop(ctx, pod, &syn, Counter::PlaintextDropped, kind::PLAINTEXT_DROPPED),
        Steer::PlaintextUnknown => drop(ctx, pod, &syn, Counter::PlaintextUnknown, kind::PLAINTEXT_DROPPED),
    }
}

#[inline(always)]
fn pass(counter: Counter) -> u32 {
    maps::count(counter);
    sk_action::SK_PASS
}

#[inline(always)]
#[cfg_attr(
    not(feature = "log"),
    expect(unused_variables, reason = "diagnostics are compiled out")
)]
fn drop(ctx: &SkLookupContext, pod: PodId, syn: &Syn, counter: Counter, why: u32) -> u32 {
    diagnose!(
        ctx,
        "refused a SYN of {:i} to port {}: event {}",
        syn.remote.octets,
        syn.local_port,
        why
    );
    maps::count(counter);
    report::dropped(pod, syn, why);
    sk_action::SK_DROP
}
