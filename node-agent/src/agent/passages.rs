//! Connections that the kernel let pass or refused, as records like all others: the same metrics, the same lines.

use super::handover;
use crate::{
    broker::{PassedConnection, Ring},
    context::Context,
    inbound,
    kernel::events::Passages,
    observe::{ConnectionInfo, KernelCarried, OpenConnection, Outcome, Path, Reporter, SecurityPolicy},
    verdicts::Verdicts,
};
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tramline_common::verdict::{Passage, ServiceAt, kind, moment};
use tramline_core::{
    authz,
    counters::ByteCounters,
    mesh::Mesh,
    reason::Reason,
    trace::TraceId,
    workload::{Protocol, Workload},
};

/// Live connections that are followed; one beyond has its line when it ends.
const MAX_FOLLOWED: usize = 65_536;

/// Between two looks. The ring buffer has room for 37,000 records: 1.8 million a second.
const GATHER: Duration = Duration::from_millis(20);

/// For what the programs told before they were replaced by a successor's, which tell him.
const REST: Duration = Duration::from_millis(500);

/// `enum tcp_state` of uapi `linux/bpf.h` (`BPF_TCP_*`), those that say how a connection ended.
mod tcp {
    pub(super) const ESTABLISHED: u32 = 1;
    pub(super) const SYN_SENT: u32 = 2;
    pub(super) const FIN_WAIT2: u32 = 5;
    pub(super) const TIME_WAIT: u32 = 6;
    pub(super) const LAST_ACK: u32 = 9;
    pub(super) const CLOSING: u32 = 11;
}

/// Follows them for the life of the agent, while it is on duty.
pub(super) async fn follow(context: Arc<Context>) {
    context.verdicts.wait_settled().await;
    let mut passages = context.broker.passages();
    loop {
        match passages {
            Some(Ok(mut passages)) => {
                tokio::select! {
                    () = read(&context, &mut passages, live(&context)) => return,
                    () = context.duty.left() => {}
                }
                if handover::is_left(&context, Ring::Passages).await {
                    let rest = read(&context, &mut passages, HashMap::new());
                    let _ = tokio::time::timeout(REST, rest).await;
                }
            }
            Some(Err(error)) => {
                return tracing::error!(%error, "cannot wait for connections that the kernel lets pass");
            }
            None => return,
        }
        context.duty.resumed().await;
        passages = match context.broker.passages_again() {
            Ok(again) => Some(again),
            Err(error) => {
                return tracing::error!(%error, "cannot read the connections that the kernel lets pass again");
            }
        };
    }
}

async fn read(context: &Context, passages: &mut Passages, mut followed: HashMap<u64, Records>) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if let Err(error) = passages.read(&mut batch).await {
            return tracing::error!(%error, "cannot read the connections that the kernel lets pass");
        }
        // The programs wake a reader only where it has read everything: while it rests, records gather at no cost.
        let more = batch.len() >= Passages::BATCH;
        let clock = Clock::now();
        for passage in &batch {
            match passage.moment {
                moment::ESTABLISHED if followed.len() < MAX_FOLLOWED => {
                    let records = followed.entry(passage.socket);
                    records.or_insert_with(|| Records::open(context, passage, &clock));
                }
                moment::ENDED | moment::GIVEN_UP => {
                    let records = followed
                        .remove(&passage.socket)
                        .unwrap_or_else(|| Records::open(context, passage, &clock));
                    records.end(context, passage, &clock);
                }
                moment::UNANSWERED => not_reached(context, passage),
                moment::REFUSED => Records::open(context, passage, &clock).refuse(context, passage),
                _ => {}
            }
        }
        if !more {
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Connections that live on from an agent before this one, as if they had come up now: when they did is not kept.
fn live(context: &Context) -> HashMap<u64, Records> {
    let clock = Clock::now();
    let passed = context.broker.passed().into_iter().take(MAX_FOLLOWED);
    let records = passed.map(|connection| {
        let passage = came_up(&connection, clock.ns);
        (connection.socket, Records::open(context, &passage, &clock))
    });
    records.collect()
}

fn came_up(connection: &PassedConnection, now_ns: u64) -> Passage {
    let dialled = connection.service;
    Passage {
        socket: connection.socket,
        source: connection.source,
        destination: connection.destination.unwrap_or(0),
        at_ns: now_ns,
        began_ns: now_ns,
        sent: 0,
        received: 0,
        local: connection.client.ip().into(),
        remote: connection.server.ip().into(),
        service: dialled.map_or(ServiceAt::NONE, |dialled| {
            ServiceAt::new(dialled.ip().into(), dialled.port())
        }),
        moment: moment::ESTABLISHED,
        kind: match connection.destination {
            Some(_) => kind::DIRECT,
            None => kind::OUTSIDE,
        },
        srtt_us: 0,
        retransmits: 0,
        local_port: connection.client.port(),
        remote_port: connection.server.port(),
        state: tcp::ESTABLISHED,
    }
}

/// The kernel's clock beside ours, which is the same one (`CLOCK_MONOTONIC`).
struct Clock {
    ns: u64,
    instant: Instant,
}

impl Clock {
    fn now() -> Self {
        let ns = clock_gettime(ClockId::CLOCK_MONOTONIC)
            .ok()
            .and_then(|now| u64::try_from(Duration::from(now).as_nanos()).ok());
        Self {
            ns: ns.unwrap_or(0),
            instant: Instant::now(),
        }
    }

    fn at(&self, ns: u64) -> Instant {
        let ago = Duration::from_nanos(self.ns.saturating_sub(ns));
        self.instant.checked_sub(ago).unwrap_or(self.instant)
    }
}

/// The records of one connection: of the side that dialled, and of the other where that is a pod of this node.
///
/// Dropped without an end they are handed over: the connection needs no agent and goes on.
struct Records {
    sides: Vec<OpenConnection>,
    counters: Arc<ByteCounters>,
    established: bool,
}

impl Records {
    fn open(context: &Context, passage: &Passage, clock: &Clock) -> Self {
        let mesh = context.mesh.load();
        let server = SocketAddr::new(passage.remote.into(), passage.remote_port);
        let client = SocketAddr::new(passage.local.into(), passage.local_port);
        let dialled = passage
            .service
            .is_some()
            .then(|| SocketAddr::new(passage.service.address.into(), passage.service.port));
        let service = dialled.and_then(|dialled| mesh.service_by_vip(dialled.ip()).cloned());
        let of = |pod| {
            let pod = context.pods.by_id(pod)?;
            mesh.workload(&pod.uid).cloned()
        };
        let source = of(passage.source);
        let destination = match passage.kind {
            kind::OUTSIDE => mesh.workload_by_address(server.ip()).cloned(),
            _ => of(passage.destination),
        };
        let trace = TraceId::new(crate::random::u64(), crate::random::u64());
        let is_inside = passage.kind != kind::OUTSIDE;
        let info = |reporter| ConnectionInfo {
            reporter,
            path: if is_inside {
                Path::SameNode
            } else {
                Path::Passthrough
            },
            security_policy: if is_inside {
                SecurityPolicy::MutualTls
            } else {
                SecurityPolicy::Unknown
            },
            source_identity: source.as_ref().map(|source| source.identity.clone()),
            source: source.clone(),
            source_address: client,
            destination_identity: destination
                .as_ref()
                .filter(|destination| destination.protocol == Protocol::Hbone)
                .map(|destination| destination.identity.clone()),
            destination: destination.clone(),
            destination_address: server,
            hbone_address: None,
            original_destination: dialled.unwrap_or(server),
            service: service.clone(),
            trace: Some(trace),
            kernel: Some(KernelCarried::default()),
            dry_run: None,
            claimed_cluster: None,
        };
        let counters = Arc::<ByteCounters>::default();
        let took = match passage.moment {
            moment::ESTABLISHED => Duration::from_nanos(passage.at_ns.saturating_sub(passage.began_ns)),
            // When it was up was not told; it took about one round trip.
            _ => Duration::from_micros(passage.srtt_us.into()),
        };
        let established = passage.moment == moment::ESTABLISHED || was_established(passage);
        let opened = clock.at(passage.began_ns);
        let observer = &context.observer;
        let open = |info| {
            let record = observer.open_since(info, counters.clone(), opened);
            if established {
                record.established_after(took);
            }
            record
        };
        let mut sides = vec![open(info(Reporter::Source))];
        if is_inside {
            let mut info = info(Reporter::Destination);
            info.dry_run = dry_run(&mesh, &info).map(Arc::new);
            sides.push(open(info));
        }
        Self {
            sides,
            counters,
            established,
        }
    }

    fn end(mut self, context: &Context, passage: &Passage, clock: &Clock) {
        self.counters.add_to_destination(passage.sent);
        self.counters.add_to_source(passage.received);
        let outcome = context
            .verdicts
            .cut
            .take(passage.socket)
            .unwrap_or_else(|| outcome(passage, self.established));
        let measured = KernelCarried {
            srtt_us: passage.srtt_us,
            retransmits: passage.retransmits,
        };
        if !self.established && passage.service.is_some() && !is_given_up(passage) {
            not_reached(context, passage);
        }
        let ended = clock.at(passage.at_ns);
        for record in self.sides.drain(..) {
            record.learn(|info| info.kernel = Some(measured));
            record.finish_at(outcome.clone(), ended);
        }
    }

    fn refuse(mut self, context: &Context, passage: &Passage) {
        let outcome = denied(context, passage);
        for record in self.sides.drain(..) {
            record.finish(outcome.clone());
        }
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        self.sides.drain(..).for_each(OpenConnection::hand_over);
    }
}

/// An endpoint to which the kernel led a connection in vain: others are better tried first, and the agent can.
fn not_reached(context: &Context, passage: &Passage) {
    if let Some(pod) = context.pods.by_id(passage.source) {
        let endpoint = SocketAddr::new(passage.remote.into(), passage.remote_port);
        context.balancer.failed(&pod.uid, endpoint);
        Verdicts::reconsider(context, pod.id, endpoint);
    }
}

fn dry_run(mesh: &Mesh, info: &ConnectionInfo) -> Option<authz::Decision> {
    let connection = authz::Connection {
        source: info.source_identity.as_ref(),
        source_address: info.source_address.ip(),
        destination: info.destination.as_deref()?,
        destination_address: info.destination_address,
    };
    authz::dry_run(mesh, &connection)
}

/// The same question that the verdict answered, asked again for its answer in words.
fn denied(context: &Context, passage: &Passage) -> Outcome {
    let mesh = context.mesh.load();
    let of = |pod| -> Option<Arc<Workload>> {
        let pod = context.pods.by_id(pod)?;
        mesh.workload(&pod.uid).cloned()
    };
    let (Some(source), Some(destination)) = (of(passage.source), of(passage.destination)) else {
        return Reason::UnknownWorkload.into();
    };
    let decision = authz::decide(
        &mesh,
        &authz::Connection {
            source: Some(&source.identity),
            // No rule that applies looks at it: else the kernel would have no verdict.
            source_address: source
                .addresses
                .first()
                .copied()
                .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()),
            destination: &destination,
            destination_address: SocketAddr::new(passage.remote.into(), passage.remote_port),
        },
    );
    if decision.is_allow() {
        return Outcome::new(Reason::PolicyDenied)
            .with_detail("refused by the configuration before the present one");
    }
    inbound::denial(&decision)
}

fn was_established(passage: &Passage) -> bool {
    passage.moment == moment::ENDED && passage.state != tcp::SYN_SENT
}

/// Whether nobody waited for an answer: that says nothing about the other end.
fn is_given_up(passage: &Passage) -> bool {
    passage.moment == moment::GIVEN_UP && passage.retransmits == 0
}

fn outcome(passage: &Passage, established: bool) -> Outcome {
    match passage.state {
        _ if is_given_up(passage) => Outcome::new(Reason::ClientGone)
            .with_detail("closed before an answer; the kernel does not tell whether by an ICMP error"),
        _ if !established && passage.retransmits == 0 => Outcome::new(Reason::ConnectRefused),
        _ if !established => Outcome::new(Reason::ConnectTimeout),
        tcp::FIN_WAIT2 | tcp::TIME_WAIT | tcp::LAST_ACK | tcp::CLOSING => Outcome::new(Reason::Ok),
        _ => Outcome::new(Reason::ResetByDestination)
            .with_detail("reset; the kernel does not tell by which side"),
    }
}
