//! Connections that the kernel let pass, by the life of the socket that dialled: known before its SYN leaves, told to the
//! agent when they are up and when they end.

use crate::{ctx, maps, verdict};
use aya_ebpf::{
    bindings::{
        BPF_TCP_CLOSE_WAIT, BPF_TCP_CLOSING, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT2, BPF_TCP_LAST_ACK,
        BPF_TCP_SYN_SENT, BPF_TCP_TIME_WAIT,
    },
    programs::SockOpsContext,
};
use tramline_common::{
    CAPTURE_MARK, PodId,
    counter::Counter,
    map::FlowKey,
    verdict::{NOT_DIALLED, OUTSIDE_GOOD_FOR_NS, Passage, Passed, Picked, kind, moment},
};

/// Called in `tcp_connect` with the 4-tuple known, before the SYN leaves.
#[inline(always)]
pub(crate) fn connecting(ctx: &SockOpsContext, picked: &Picked) {
    let source = ctx::netns_of_event(ctx);
    // Bound to a device since, it would go where that leads: the verdict was made about a socket that is not.
    if ctx::event_device(ctx) != 0 {
        release_device(ctx);
        hand_over(ctx);
        return;
    }
    // Something changed since the connect was let pass.
    let current = verdict::is_current(
        source,
        picked.verdict.source_version,
        picked.verdict.destination,
        picked.verdict.destination_version,
    );
    if !current {
        maps::count(Counter::VerdictStale);
    }
    if picked.verdict.kind == kind::OUTSIDE {
        let late = ctx::now_ns().saturating_sub(picked.began_ns) > OUTSIDE_GOOD_FOR_NS;
        if (late || !current) && hand_over(ctx) {
            return;
        }
    }
    // Also a stale one to a pod is noted: its versions tell `steer`, which hands it to the agent.
    let passed = Passed {
        socket: ctx::socket_cookie(ctx),
        source,
        source_version: picked.verdict.source_version,
        destination_version: picked.verdict.destination_version,
        service: picked.service,
    };
    let key = flow_key(ctx, source, picked);
    if !maps::note_passed(picked.verdict.kind, &key, &passed) {
        maps::count(Counter::PassedFull);
        // What cannot be noted could not be cut.
        if hand_over(ctx) {
            return;
        }
    }
    let followed = if picked.service.is_some() {
        ctx::watch_states_and_silence(ctx)
    } else {
        ctx::watch_states(ctx)
    };
    if followed {
        maps::note_received(ctx::event_socket(ctx), 0);
        maps::load_begins(picked.verdict.load);
    }
}

/// Makes the connection the agent's, as if `connect` had captured it: its SYN takes the way of the mark.
#[inline(always)]
fn hand_over(ctx: &SockOpsContext) -> bool {
    let marked = ctx::mark_event_socket(ctx, CAPTURE_MARK);
    if marked {
        maps::void_pick(ctx::event_socket(ctx));
        maps::count(Counter::Captured);
    }
    marked
}

/// Releases the socket from a device that it was bound to after `connect` was captured: it would not find the route to loopback.
/// The kernel asks the process for a privilege (`CAP_NET_RAW`) that binding did not need: without it, what is marked is led to
/// loopback by the routes of the pod's namespace, and the connection fails there.
#[inline(always)]
pub(crate) fn release_device(ctx: &SockOpsContext) {
    if ctx::unbind_event_socket(ctx) {
        maps::count(Counter::DeviceUnbound);
    }
}

/// The handshake is complete.
#[inline(always)]
pub(crate) fn established(ctx: &SockOpsContext, picked: &Picked) {
    tell(ctx, picked, moment::ESTABLISHED, BPF_TCP_ESTABLISHED);
}

/// The endpoint of a Service has not answered the SYN in time.
#[inline(always)]
pub(crate) fn unanswered(ctx: &SockOpsContext, picked: &Picked) {
    tell(ctx, picked, moment::UNANSWERED, BPF_TCP_SYN_SENT);
}

/// The other end has acknowledged the FIN: what has come until now came without one.
#[inline(always)]
pub(crate) fn half_closed(ctx: &SockOpsContext) {
    let (_, received) = ctx::bytes(ctx);
    maps::note_received(ctx::event_socket(ctx), received);
}

/// The socket is closed; `state` is the one it was in before.
#[inline(always)]
pub(crate) fn closed(ctx: &SockOpsContext, picked: &Picked, state: u32) {
    // The socket has the callbacks of an earlier connection.
    if picked.received == NOT_DIALLED {
        return;
    }
    let source = ctx::netns_of_event(ctx);
    maps::forget_passed(
        picked.verdict.kind,
        &flow_key(ctx, source, picked),
        ctx::socket_cookie(ctx),
    );
    maps::load_ends(picked.verdict.load);
    let given_up = state == BPF_TCP_SYN_SENT && !ctx::has_heard(ctx);
    let moment = if given_up { moment::GIVEN_UP } else { moment::ENDED };
    tell(ctx, picked, moment, state);
}

/// A connection between two pods is known as its destination's pod sees it, one out of the mesh as its source does.
#[inline(always)]
fn flow_key(ctx: &SockOpsContext, source: PodId, picked: &Picked) -> FlowKey {
    let (client, client_port, server, server_port) = ctx::event_flow(ctx);
    if picked.verdict.kind == kind::DIRECT {
        FlowKey {
            pod: picked.verdict.destination,
            remote: client,
            local: server,
            remote_port: client_port,
            local_port: server_port,
            reserved: 0,
        }
    } else {
        FlowKey {
            pod: source,
            remote: server,
            local: client,
            remote_port: server_port,
            local_port: client_port,
            reserved: 0,
        }
    }
}

#[inline(always)]
fn tell(ctx: &SockOpsContext, picked: &Picked, moment: u32, state: u32) {
    let (local, local_port, remote, remote_port) = ctx::event_flow(ctx);
    let (acked, received) = ctx::bytes(ctx);
    // Both count the SYN or the FIN as a byte.
    let syn = u64::from(state != BPF_TCP_SYN_SENT);
    let fin_acked = u64::from(matches!(
        state,
        BPF_TCP_FIN_WAIT2 | BPF_TCP_LAST_ACK | BPF_TCP_TIME_WAIT | BPF_TCP_CLOSING
    ));
    let fin_received = u64::from(match state {
        BPF_TCP_CLOSE_WAIT | BPF_TCP_LAST_ACK | BPF_TCP_CLOSING | BPF_TCP_TIME_WAIT => true,
        // The kernel closes a socket without an owner here, before the other end's FIN.
        BPF_TCP_FIN_WAIT2 => received != picked.received,
        _ => false,
    });
    let (srtt_us, retransmits) = ctx::quality(ctx);
    maps::tell_passage(Passage {
        socket: ctx::socket_cookie(ctx),
        source: ctx::netns_of_event(ctx),
        destination: picked.verdict.destination,
        at_ns: ctx::now_ns(),
        began_ns: picked.began_ns,
        sent: acked.saturating_sub(syn + fin_acked),
        received: received.saturating_sub(fin_received),
        local,
        remote,
        service: picked.service,
        moment,
        kind: picked.verdict.kind,
        srtt_us,
        retransmits,
        local_port,
        remote_port,
        state,
    });
}
