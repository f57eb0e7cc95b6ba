//! Verdicts of the agent, asked at connect and again when the SYN arrives.

use crate::{
    ctx::{self, Destination},
    maps, report,
};
use aya_ebpf::programs::SockAddrContext;
use tramline_common::{
    CAPTURE_MARK, PodId,
    counter::Counter,
    verdict::{Picked, VerdictKey, kind},
};

/// What becomes of a connect.
pub(crate) enum Answer {
    /// It goes on as without a mesh.
    Pass,
    /// It is refused.
    Refuse,
    /// It is the agent's.
    Agent,
}

/// Asks about one connect of an enrolled pod. Whatever is unusual about the socket makes it the agent's: the verdict was
/// made about one that the kernel routes by itself.
#[inline(always)]
pub(crate) fn ask(ctx: &SockAddrContext, pod: PodId, to: &Destination) -> Answer {
    let socket = ctx::connecting_socket(ctx);
    let Some(verdict) = maps::verdict(&VerdictKey::new(pod, to.address, to.port)) else {
        maps::count(Counter::VerdictMiss);
        maps::unpick(socket);
        return Answer::Agent;
    };
    if !is_current(
        pod,
        verdict.source_version,
        verdict.destination,
        verdict.destination_version,
    ) {
        maps::count(Counter::VerdictStale);
        maps::unpick(socket);
        return Answer::Agent;
    }
    maps::count(Counter::VerdictHit);
    if verdict.kind == kind::DENY {
        maps::unpick(socket);
        maps::count(Counter::VerdictDenied);
        report::refused(pod, to, &verdict);
        ctx::answer_not_permitted();
        return Answer::Refuse;
    }
    let mark = ctx::mark(ctx);
    let usual = (mark == 0 || mark == CAPTURE_MARK) && ctx::bound_device(ctx) == 0 && !ctx::is_bound(ctx);
    if !usual || (mark != 0 && !ctx::set_mark(ctx, 0)) || !maps::pick(socket, verdict, ctx::now_ns()) {
        maps::unpick(socket);
        return Answer::Agent;
    }
    maps::count(match verdict.kind {
        kind::DIRECT => Counter::PassedDirect,
        _ => Counter::PassedOutside,
    });
    Answer::Pass
}

/// Whether both pods have the versions they had.
#[inline(always)]
pub(crate) fn is_current(
    source: PodId,
    source_version: u64,
    destination: PodId,
    destination_version: u64,
) -> bool {
    maps::version(source) == Some(source_version)
        && (destination == 0 || maps::version(destination) == Some(destination_version))
}

/// Whether what a socket was let pass by is a verdict on a connection to follow.
#[inline(always)]
pub(crate) fn is_passed(picked: &Picked) -> bool {
    picked.verdict.kind == kind::DIRECT || picked.verdict.kind == kind::OUTSIDE
}
