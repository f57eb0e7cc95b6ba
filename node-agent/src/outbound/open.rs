//! Opening the far half of a connection that a pod of this node opens.

use super::Far;
use crate::{
    accept::{ClientAddr, OriginalDst},
    balancer::Live,
    context::Context,
    dial::{self, DialError},
    inbound,
    observe::{OpenConnection, Outcome, Path, SecurityPolicy},
    pods::{LocalPod, LocalPods},
    random,
    recheck::{Decided, Outside, not_outside},
    tunnel::{ConnectRequest, Forwarded, PoolKey, Shown, TunnelError},
    verdicts::Verdicts,
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tramline_core::{
    admit::{self, HBONE_PORT},
    baggage,
    mesh::Mesh,
    reason::Reason,
    route::{
        self, OutboundRoute, Target,
        attempts::{Attempts, GaveUp},
    },
    service::Service,
    trace::TraceId,
    workload::{Protocol, Workload},
};

/// Everything that is settled when the far half is opened.
pub(super) struct Dialled<'a> {
    pub(super) context: &'a Context,
    pub(super) mesh: Arc<Mesh>,
    pub(super) pod: &'a LocalPod,
    pub(super) source: Arc<Workload>,
    pub(super) original: OriginalDst,
    pub(super) client: ClientAddr,
    /// The endpoint of a Service that the kernel chose.
    pub(super) picked: Option<SocketAddr>,
    pub(super) trace: TraceId,
}

impl Dialled<'_> {
    /// Chooses a destination and connects; where a Service's endpoint cannot be reached, tries another. What is answered
    /// with the far half counts the connection towards its endpoint.
    pub(super) async fn open(mut self, record: &OpenConnection) -> Result<(Far, Live), Outcome> {
        let context = self.context;
        let balancer = &context.balancer;
        let mut attempts = Attempts::new(balancer.now(), self.context.waits.service);
        let mut failure = None;
        let mut has_waited = false;
        loop {
            let route = match self.route(attempts.tried()) {
                Ok(route) => route,
                // What the last endpoint said is closer to the cause than that there is no other.
                Err(error) => return Err(failure.unwrap_or(error)),
            };
            let address = route.target.address();
            let live = balancer.count(address);
            record.learn(|info| {
                info.service = route.service.clone();
                info.destination_address = address;
                // What was learned of the endpoint before.
                info.path = Path::Passthrough;
                info.security_policy = SecurityPolicy::Unknown;
                info.destination = None;
                info.destination_identity = None;
                info.hbone_address = None;
            });
            let missing = self.missing(&route.target).filter(|_| !has_waited);
            let begun = Instant::now();
            let Some(service) = route.service else {
                match self.connect(route.target, None, None, record).await {
                    Ok(far) => return Ok((far, live)),
                    Err(refusal) => {
                        let patience = context.waits.enrolment;
                        has_waited = self.wait_for(missing, &refusal, patience).await;
                        if !has_waited {
                            return Err(refusal);
                        }
                        self.follow()?;
                        continue;
                    }
                }
            };
            if failure.is_none() && !has_waited {
                balancer.begun(&service);
            }
            balancer.chosen(self.client.0.ip(), &service, self.original.0.port(), address);
            let within = attempts.share(balancer.now(), route.alternatives);
            let connected = self.connect(route.target, Some(service.clone()), Some(within), record);
            match connected.await {
                Ok(far) => {
                    if balancer.reached(&self.source.uid, address) {
                        // The kernel may lead connections there again.
                        Verdicts::reconsider(self.context, self.pod.id, address);
                    }
                    return Ok((far, live));
                }
                Err(refusal) if !is_about_endpoint(refusal.reason) => return Err(refusal),
                Err(refusal) => {
                    drop(live);
                    let patience = within.saturating_sub(begun.elapsed());
                    if self.wait_for(missing, &refusal, patience).await {
                        has_waited = true;
                        self.follow()?;
                        continue;
                    }
                    balancer.failed(&self.source.uid, address);
                    Verdicts::reconsider(self.context, self.pod.id, address);
                    let next = attempts.failed(address, balancer.now(), route.alternatives, || {
                        balancer.take_retry(&service)
                    });
                    match next {
                        Ok(()) => {
                            tracing::debug!(%address, reason = %refusal.reason, "endpoint not reached; trying another");
                            failure = Some(refusal);
                            self.follow()?;
                        }
                        Err(gave_up) => return Err(last(refusal, attempts.tried().len(), gave_up)),
                    }
                }
            }
        }
    }

    /// Decides by the present snapshot from now on: what was tried before may have taken its time.
    fn follow(&mut self) -> Result<(), Outcome> {
        let mesh = self.context.mesh.load_full();
        if mesh.generation() != self.mesh.generation() {
            let source = mesh.workload(&self.pod.uid).cloned();
            self.source = source.ok_or(Outcome::from(Reason::UnknownWorkload))?;
            self.mesh = mesh;
        }
        Ok(())
    }

    /// The destination, if it is a pod of this node that is not enrolled: an agent that starts may not have come to it yet.
    fn missing(&self, target: &Target) -> Option<Arc<Workload>> {
        let Target::Workload { workload, .. } = target else {
            return None;
        };
        let is_missing =
            workload.node == self.context.node && workload.enrolled && self.context.local(workload).is_none();
        is_missing.then(|| workload.clone())
    }

    /// Waits for a pod that was missing where that is why it was not reached: no agent before this one answers for it. Says
    /// whether it is there now.
    async fn wait_for(&self, missing: Option<Arc<Workload>>, refusal: &Outcome, patience: Duration) -> bool {
        let Some(missing) = missing.filter(|_| is_about_endpoint(refusal.reason)) else {
            return false;
        };
        let find = |pods: &LocalPods| pods.get(&missing.uid);
        self.context.once_enrolled(patience, find).await.is_some()
    }

    fn route(&self, tried: &[SocketAddr]) -> Result<OutboundRoute, Outcome> {
        let dialled = route::Dialled {
            source: &self.source,
            client: self.client.0.ip(),
            destination: self.original.0,
            draws: [random::u64(), random::u64()],
            tried,
            picked: self.picked,
        };
        let known = self.context.balancer.seen_by(&self.source.uid);
        route::outbound(&self.mesh, &dialled, &known)
            .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))
    }

    /// Connects; `within` bounds it where others could be tried.
    async fn connect(
        &self,
        target: Target,
        service: Option<Arc<Service>>,
        within: Option<Duration>,
        record: &OpenConnection,
    ) -> Result<Far, Outcome> {
        match target {
            Target::Workload { workload, address } => {
                self.to_workload(&workload, address, service, within, record)
                    .await
            }
            Target::Passthrough { address } => self.outside(address, within).await,
        }
    }

    async fn to_workload(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        service: Option<Arc<Service>>,
        within: Option<Duration>,
        record: &OpenConnection,
    ) -> Result<Far, Outcome> {
        record.learn(|info| {
            info.destination = Some(workload.clone());
            info.destination_identity =
                (workload.protocol == Protocol::Hbone).then(|| workload.identity.clone());
        });
        if workload.protocol == Protocol::Plaintext {
            return self.outside(address, within).await;
        }
        if admit::is_reserved(address.port()) {
            return Err(Outcome::new(Reason::CaptureLoop));
        }
        record.learn(|info| info.security_policy = SecurityPolicy::MutualTls);
        match self.context.local(workload) {
            Some(destination) => {
                record.learn(|info| info.path = Path::SameNode);
                let arrival = inbound::Arrival {
                    mesh: &self.mesh,
                    path: Path::SameNode,
                    source: Some(self.source.clone()),
                    claimed_cluster: None,
                    identity: self.source.identity.clone(),
                    client: self.client.0,
                    original: self.original.0,
                    service,
                    trace: Some(self.trace),
                    counters: record.counters().clone(),
                };
                let most = self.context.waits.application;
                let within = within.map_or(most, |within| within.min(most));
                inbound::from_this_node(self.context, &destination, workload, arrival, address, within)
                    .await
                    .map(|(application, inbound)| Far::SameNode {
                        application,
                        inbound,
                        decided: Decided {
                            generation: self.mesh.generation(),
                            source: Some(self.source.identity.clone()),
                            source_address: self.client.0.ip(),
                            destination: workload.uid.clone(),
                            destination_address: address,
                        },
                    })
            }
            None => {
                self.through_tunnel(workload, address, service, within, record)
                    .await
            }
        }
    }

    async fn through_tunnel(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        service: Option<Arc<Service>>,
        within: Option<Duration>,
        record: &OpenConnection,
    ) -> Result<Far, Outcome> {
        let context = self.context;
        let peer = SocketAddr::new(address.ip(), HBONE_PORT);
        record.learn(|info| {
            info.path = Path::Hbone;
            info.destination_address = peer;
            info.hbone_address = Some(address);
        });
        let certificate = context
            .certificates
            .get(&self.source.identity)
            .await
            .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))?;
        let key = PoolKey {
            source_workload: self.source.uid.clone(),
            source: self.source.identity.clone(),
            destination: workload.identity.clone(),
            address: peer,
        };
        let request = ConnectRequest {
            authority: address,
            forwarded: Forwarded {
                client: self.client.0,
                host: service.map(|service| service.hostname.clone()),
            },
            baggage: Some(baggage::of(&self.source, context.observer.cluster())),
            traceparent: Some(self.trace.traceparent(random::u64())),
        };
        let (broker, pod, connect) = (context.broker.clone(), self.pod.id, context.tunnel.connect);
        let dial = move || -> futures_util::future::BoxFuture<'static, std::io::Result<TcpStream>> {
            Box::pin(async move {
                dial::egress(&broker, pod, peer, connect)
                    .await
                    .map_err(DialError::into_io)
            })
        };
        let shown = Shown::to(&workload.identity, &certificate);
        // Others may wait for the same tunnel: it goes on being made when this connection does not wait any longer.
        let opening = context.pool.open(&key, shown, dial, request);
        let opened = match within {
            None => opening.await,
            Some(within) => match tokio::time::timeout(within, opening).await {
                Ok(opened) => opened,
                Err(_) => {
                    let detail = format!("no tunnel to {peer} within {} s", within.as_secs_f32());
                    return Err(Outcome::new(Reason::ConnectTimeout).with_detail(detail));
                }
            },
        };
        opened
            .map(Far::Tunnel)
            .map_err(|error: TunnelError| Outcome::new(error.reason()).with_detail(error.to_string()))
    }

    async fn outside(&self, address: SocketAddr, within: Option<Duration>) -> Result<Far, Outcome> {
        let within = within.unwrap_or(self.context.waits.egress);
        dial::egress(&self.context.broker, self.pod.id, address, within)
            .await
            .map(|server| {
                let is_outside = not_outside(&self.mesh, &self.source, address).is_none();
                let decided = is_outside.then(|| Outside {
                    generation: self.mesh.generation(),
                    source: self.source.uid.clone(),
                    address,
                });
                Far::Outside { server, decided }
            })
            .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))
    }
}

/// The answer to the client when no other endpoint is tried: the last one's, and why it is the last.
fn last(refusal: Outcome, tried: usize, gave_up: GaveUp) -> Outcome {
    if tried == 1 && gave_up == GaveUp::NothingLeft {
        return refusal;
    }
    let detail = match &refusal.detail {
        Some(detail) => format!("{detail}; after {tried} tried: {gave_up}"),
        None => format!("after {tried} tried: {gave_up}"),
    };
    refusal.with_detail(detail)
}

/// Whether another endpoint of the same Service may do better.
fn is_about_endpoint(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectRefused
            | Reason::ConnectTimeout
            | Reason::ConnectUnreachable
            | Reason::HandshakeTimeout
            | Reason::TunnelLost
            // Another endpoint's agent may accept it: roots and lists are replaced node by node.
            | Reason::CertificateRefused
            // Answers of the agent before the endpoint, to which nothing was delivered.
            | Reason::UnknownWorkload
            | Reason::AgentDraining
    )
}
