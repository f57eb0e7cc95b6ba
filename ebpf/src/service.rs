//! A connect to a Service: the kernel chooses the endpoint as the agent would, and leads the connection there itself where
//! it may. Where it may not, the agent is told the choice by the mark.

use crate::{
    ctx::{self, Destination},
    maps,
    verdict::{self, Answer},
};
use aya_ebpf::programs::SockAddrContext;
use tramline_common::{
    PodId,
    counter::Counter,
    service::{self, Endpoint, EndpointKey, ServiceRow},
    verdict::{ServiceAt, VerdictKey, kind},
};

/// Asks about a connect that has no verdict of its own.
#[inline(always)]
pub(crate) fn ask(
    ctx: &SockAddrContext,
    pod: PodId,
    key: &VerdictKey,
    redirect: impl Fn(&SockAddrContext, &Destination) -> bool,
) -> Answer {
    let Some(row) = maps::service(key) else {
        maps::count(Counter::VerdictMiss);
        return Answer::Agent(None);
    };
    if maps::version(pod) != Some(row.source_version) {
        maps::count(Counter::VerdictStale);
        return Answer::Agent(None);
    }
    let Some((index, endpoint)) = choose(&row) else {
        // Taken back while it was read.
        maps::count(Counter::VerdictStale);
        return Answer::Agent(None);
    };
    lead(ctx, pod, key, &endpoint, redirect).unwrap_or(Answer::Agent(Some(index)))
}

/// What the kernel does with the connection by itself; `None` where that is the agent's.
#[inline(always)]
fn lead(
    ctx: &SockAddrContext,
    pod: PodId,
    key: &VerdictKey,
    endpoint: &Endpoint,
    redirect: impl Fn(&SockAddrContext, &Destination) -> bool,
) -> Option<Answer> {
    let verdict = &endpoint.verdict;
    if verdict.kind == kind::NONE {
        maps::count(Counter::ServiceHandedOver);
        return None;
    }
    if !verdict::is_current(
        pod,
        verdict.source_version,
        verdict.destination,
        verdict.destination_version,
    ) {
        maps::count(Counter::VerdictStale);
        return None;
    }
    // Where nothing listens the agent tries another endpoint, which the kernel cannot.
    if verdict.kind == kind::DIRECT && !maps::is_listening(verdict.destination, endpoint.port) {
        maps::count(Counter::ServiceNotListening);
        return None;
    }
    maps::count(Counter::VerdictHit);
    let to = Destination {
        address: endpoint.address,
        port: endpoint.port,
    };
    let dialled = ServiceAt::new(key.address, key.port);
    if verdict.kind == kind::DENY {
        return Some(verdict::refuse(pod, &to, verdict, dialled));
    }
    if !verdict::let_pass(ctx, verdict, dialled) {
        return None;
    }
    if !redirect(ctx, &to) {
        maps::unpick(ctx::connecting_socket(ctx));
        return None;
    }
    maps::count(Counter::ServiceLed);
    Some(Answer::Pass)
}

/// Of two endpoints drawn at random the less busy one, the first where they are equally so.
#[inline(always)]
fn choose(row: &ServiceRow) -> Option<(u32, Endpoint)> {
    if row.endpoints == 0 {
        return None;
    }
    let first = service::first(ctx::random(), row.endpoints);
    let one = maps::endpoint(&EndpointKey::new(row.row, first))?;
    if row.endpoints == 1 {
        return Some((first, one));
    }
    let second = service::second(ctx::random(), row.endpoints, first);
    let other = maps::endpoint(&EndpointKey::new(row.row, second))?;
    if maps::load(other.verdict.load) < maps::load(one.verdict.load) {
        Some((second, other))
    } else {
        Some((first, one))
    }
}
