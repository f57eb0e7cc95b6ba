//! The registry of deliveries and the table of listening ports, kept by the life of the sockets themselves:
//! an agent that dies takes its entries with it.

use crate::{ctx, maps, passage, report, verdict};
use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_RTO_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE,
        BPF_TCP_CLOSE_WAIT, BPF_TCP_FIN_WAIT2, BPF_TCP_LISTEN, BPF_TCP_SYN_SENT,
    },
    programs::SockOpsContext,
};
use tramline_common::{
    CAPTURE_MARK, CAPTURE_MASK,
    counter::Counter,
    map::{Flow, FlowKey, Owned, owned},
    verdict::Picked,
};

/// Handles one event of one socket.
#[inline(always)]
pub(crate) fn socket_event(ctx: &SockOpsContext) {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(ctx),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB | BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => established(ctx),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(ctx),
        BPF_SOCK_OPS_STATE_CB => state_changed(ctx),
        BPF_SOCK_OPS_RTO_CB => silent(ctx),
        _ => {}
    }
}

/// Called in `tcp_connect` with the 4-tuple known, before the SYN leaves.
#[inline(always)]
fn connecting(ctx: &SockOpsContext) {
    let Some(delivery) = delivery(ctx) else {
        match picked(ctx) {
            Some(picked) => passage::connecting(ctx, &picked),
            None => captured(ctx),
        }
        return;
    };
    let key = flow_key(ctx, &delivery);
    let flow = Flow {
        socket: ctx::socket_cookie(ctx),
        role: delivery.role,
        reserved: 0,
    };
    // Without the callback nobody would remove the entry: then do not insert it.
    let registered = ctx::watch_states(ctx) && maps::register(&key, &flow);
    if !registered {
        diagnose!(ctx, "no room to register a delivery to port {}", key.local_port);
        maps::count(Counter::RegistryFull);
        report::registry_full(&key);
    }
}

/// Of what `connect` captured, the SYN may come much later, and the socket be bound to a device since.
#[inline(always)]
fn captured(ctx: &SockOpsContext) {
    if ctx::event_device(ctx) != 0
        && ctx::event_mark(ctx) & CAPTURE_MASK == CAPTURE_MARK
        && maps::is_enrolled(ctx::netns_of_event(ctx))
    {
        passage::release_device(ctx);
    }
}

/// The handshake is complete. A socket that dialled may come here as one that was accepted, where both ends dialled at once.
#[inline(always)]
fn established(ctx: &SockOpsContext) {
    if let Some(picked) = picked(ctx) {
        passage::established(ctx, &picked);
    } else if ctx.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        && ctx::watches_states(ctx)
        && delivery(ctx).is_none()
        && maps::is_enrolled(ctx::netns_of_event(ctx))
    {
        // One that was accepted has its listener's flags and nothing to tell: four calls for nothing.
        ctx::leave_states(ctx);
    }
}

#[inline(always)]
fn listening(ctx: &SockOpsContext) {
    let pod = ctx::netns_of_event(ctx);
    if !maps::is_enrolled(pod) || maps::owned(ctx::event_socket(ctx)).is_some() {
        return;
    }
    let (_, port, _, _) = ctx::event_flow(ctx);
    // In this order: the end of one that was not counted must not be taken off what others are.
    let counted = maps::listen_begins(pod, port);
    if !counted {
        maps::count(Counter::ListeningFull);
    } else if !ctx::watch_states(ctx) {
        maps::listen_ends(pod, port);
    }
}

#[inline(always)]
fn state_changed(ctx: &SockOpsContext) {
    let (old, new) = (ctx.arg(0), ctx.arg(1));
    if new != BPF_TCP_CLOSE && new != BPF_TCP_CLOSE_WAIT {
        if new == BPF_TCP_FIN_WAIT2 {
            passage::half_closed(ctx);
        }
        return;
    }
    if old == BPF_TCP_LISTEN {
        let (_, port, _, _) = ctx::event_flow(ctx);
        maps::listen_ends(ctx::netns_of_event(ctx), port);
        return;
    }
    // Also when the application has said its last (CLOSE_WAIT): its socket may be gone long before the delivering
    // one, and then a SYN from the client's address and port, which need not be the client's, would be let in.
    if let Some(delivery) = delivery(ctx) {
        maps::unregister(&flow_key(ctx, &delivery), ctx::socket_cookie(ctx));
    } else if new == BPF_TCP_CLOSE
        && let Some(picked) = picked(ctx)
    {
        passage::closed(ctx, &picked, old);
    }
}

/// Called before the first unacknowledged segment is sent again, with how often that was done before.
#[inline(always)]
fn silent(ctx: &SockOpsContext) {
    if ctx::state(ctx) == BPF_TCP_SYN_SENT
        && ctx.arg(0) == 0
        && let Some(picked) = picked(ctx)
    {
        passage::unanswered(ctx, &picked);
    }
}

/// The verdict that the event's socket was let pass by.
#[inline(always)]
fn picked(ctx: &SockOpsContext) -> Option<Picked> {
    maps::picked(ctx::event_socket(ctx)).filter(verdict::is_passed)
}

#[inline(always)]
fn delivery(ctx: &SockOpsContext) -> Option<Owned> {
    maps::owned(ctx::event_socket(ctx)).filter(|owned| matches!(owned.role, owned::DELIVERY | owned::PROBE))
}

/// The key as the pod sees it: the delivering socket's local side is the client.
#[inline(always)]
fn flow_key(ctx: &SockOpsContext, delivery: &Owned) -> FlowKey {
    let (client, client_port, application, application_port) = ctx::event_flow(ctx);
    FlowKey {
        pod: delivery.pod,
        remote: client,
        local: application,
        remote_port: client_port,
        local_port: application_port,
        reserved: 0,
    }
}
