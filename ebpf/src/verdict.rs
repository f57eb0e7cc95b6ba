//! Verdicts of the agent, asked at connect and again when the SYN arrives.

use crate::{
    ctx::{self, Destination},
    maps, report, service,
};
use aya_ebpf::programs::SockAddrContext;
use tramline_common::{
    CAPTURE_MARK, CAPTURE_MASK, PodId,
    counter::Counter,
    verdict::{Picked, ServiceAt, Verdict, VerdictKey, kind},
};

/// What becomes of a connect.
pub(crate) enum Answer {
    /// It goes on as without a mesh.
    Pass,
    /// It is refused.
    Refuse,
    /// It is the agent's; for a Service perhaps with the endpoint that was chosen.
    Agent(Option<u32>),
}

/// Asks about one connect of an enrolled pod. Whatever is unusual about the socket makes it the agent's: the verdict was
/// made about one that the kernel routes by itself.
#[inline(always)]
pub(crate) fn ask(
    ctx: &SockAddrContext,
    pod: PodId,
    to: &Destination,
    redirect: impl Fn(&SockAddrContext, &Destination) -> bool,
) -> Answer {
    let key = VerdictKey::new(pod, to.address, to.port);
    let answer = match maps::verdict(&key) {
        Some(verdict) => apply(ctx, pod, to, &verdict),
        None => service::ask(ctx, pod, &key, redirect),
    };
    if !matches!(answer, Answer::Pass) {
        // The same socket may have passed by an earlier connect.
        maps::unpick(ctx::connecting_socket(ctx));
    }
    answer
}

#[inline(always)]
fn apply(ctx: &SockAddrContext, pod: PodId, to: &Destination, verdict: &Verdict) -> Answer {
    if !is_current(
        pod,
        verdict.source_version,
        verdict.destination,
        verdict.destination_version,
    ) {
        maps::count(Counter::VerdictStale);
        return Answer::Agent(None);
    }
    maps::count(Counter::VerdictHit);
    if verdict.kind == kind::DENY {
        return refuse(pod, to, verdict, ServiceAt::NONE);
    }
    if let_pass(ctx, verdict, ServiceAt::NONE) {
        Answer::Pass
    } else {
        Answer::Agent(None)
    }
}

/// Refuses the connect and tells the agent so.
#[inline(always)]
pub(crate) fn refuse(pod: PodId, to: &Destination, verdict: &Verdict, dialled: ServiceAt) -> Answer {
    maps::count(Counter::VerdictDenied);
    report::refused(pod, to, verdict, dialled);
    ctx::answer_not_permitted();
    Answer::Refuse
}

/// Notes on the socket by what it passes; false where it is none that the kernel would route as the verdict assumes.
#[inline(always)]
pub(crate) fn let_pass(ctx: &SockAddrContext, verdict: &Verdict, dialled: ServiceAt) -> bool {
    let mark = ctx::mark(ctx);
    let unmarked = mark == 0 || mark & CAPTURE_MASK == CAPTURE_MARK;
    if !unmarked || ctx::bound_device(ctx) != 0 || ctx::is_bound(ctx) {
        return false;
    }
    if mark != 0 && !ctx::set_mark(ctx, 0) {
        return false;
    }
    if !maps::pick(ctx::connecting_socket(ctx), *verdict, dialled, ctx::now_ns()) {
        return false;
    }
    maps::count(match verdict.kind {
        kind::DIRECT => Counter::PassedDirect,
        _ => Counter::PassedOutside,
    });
    true
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
