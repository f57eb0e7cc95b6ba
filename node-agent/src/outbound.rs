//! The life of a connection that a pod of this node opens.
//!
//! `accept` what it dialled → `route` where that leads → open the far half (same node, tunnel, or as it is) →
//! `relay` → one record.

use crate::{
    accept::{self, ClientAddr, OriginalDst},
    context::Context,
    dial::{self, DialError},
    inbound,
    observe::{ConnectionInfo, OpenConnection, Outcome, Path, Reporter, SecurityPolicy},
    pods::LocalPod,
    random,
    recheck::{Decided, relay_while_allowed},
    tunnel::{self, ConnectRequest, Forwarded, PoolKey, RelayEnd, Side, TunnelError, TunnelStream},
};
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;
use tramline_core::{
    admit::{self, HBONE_PORT},
    baggage,
    mesh::Mesh,
    reason::Reason,
    route::{self, Target},
    service::Service,
    workload::{Protocol, Workload},
};

/// Endpoints of a Service that are tried before the client is told no.
const ATTEMPTS: usize = 3;

/// Name of the cluster in the baggage; Istio's default.
const CLUSTER: &str = "Kubernetes";

/// The other half of a connection.
enum Far {
    /// Through a tunnel to another node.
    Tunnel(TunnelStream),
    /// To an application of this node, with that side's own record.
    SameNode {
        application: TcpStream,
        inbound: OpenConnection,
        decided: Decided,
    },
    /// To a destination outside the mesh.
    Outside(TcpStream),
}

/// Carries one captured connection from accept to close.
pub(crate) async fn serve(context: Arc<Context>, pod: Arc<LocalPod>, socket: TcpStream) {
    let Ok((original, client)) = accept::addresses(&socket) else {
        return;
    };
    let mesh = context.mesh.load_full();
    let source = mesh.workload(&pod.uid).cloned();
    let record = context.observer.open(opening(source.clone(), original, client));
    let Some(source) = source else {
        accept::abort(socket);
        return record.finish(Reason::UnknownWorkload);
    };
    let dialled = Dialled {
        context: &context,
        mesh: &mesh,
        pod: &pod,
        source: &source,
        original,
        client,
    };
    let opened = dialled.open(&record).await;
    // A connection may live for days; the snapshot it was decided by must not.
    drop((source, mesh));
    match opened {
        Ok(far) => {
            record.established();
            let end = carry(&context, socket, far, &record).await;
            record.finish(end);
        }
        Err(refusal) => {
            accept::abort(socket);
            record.finish(refusal);
        }
    }
}

/// Everything that is settled when the far half is opened.
struct Dialled<'a> {
    context: &'a Context,
    mesh: &'a Mesh,
    pod: &'a LocalPod,
    source: &'a Arc<Workload>,
    original: OriginalDst,
    client: ClientAddr,
}

impl Dialled<'_> {
    /// Chooses a destination and connects; where a Service's endpoint cannot be reached, tries another.
    async fn open(&self, record: &OpenConnection) -> Result<Far, Outcome> {
        let mut tried = Vec::new();
        loop {
            let route = route::outbound(self.mesh, self.source, self.original.0, random::u64(), &tried)
                .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))?;
            let address = route.target.address();
            let service = route.service;
            let of_service = service.is_some();
            record.learn(|info| {
                info.service = service.clone();
                info.destination_address = address;
            });
            let opened = match route.target {
                Target::Workload { workload, address } => {
                    self.to_workload(&workload, address, service, record).await
                }
                Target::Passthrough { address } => self.outside(address).await,
            };
            match opened {
                Err(error) if of_service && is_about_endpoint(error.reason) && tried.len() + 1 < ATTEMPTS => {
                    tracing::debug!(%address, reason = %error.reason, "endpoint not reached; trying another");
                    tried.push(address);
                }
                opened => return opened,
            }
        }
    }

    async fn to_workload(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        service: Option<Arc<Service>>,
        record: &OpenConnection,
    ) -> Result<Far, Outcome> {
        record.learn(|info| {
            info.destination = Some(workload.clone());
            info.destination_identity =
                (workload.protocol == Protocol::Hbone).then(|| workload.identity.clone());
        });
        if workload.protocol == Protocol::Plaintext {
            return self.outside(address).await;
        }
        if admit::is_reserved(address.port()) {
            return Err(Outcome::new(Reason::CaptureLoop));
        }
        record.learn(|info| info.security_policy = SecurityPolicy::MutualTls);
        match self.context.local(workload) {
            Some(destination) => {
                record.learn(|info| info.path = Path::SameNode);
                let arrival = inbound::Arrival {
                    mesh: self.mesh,
                    path: Path::SameNode,
                    source: Some(self.source.clone()),
                    identity: self.source.identity.clone(),
                    client: self.client.0,
                    original: self.original.0,
                    service,
                    counters: record.counters().clone(),
                };
                inbound::from_this_node(self.context, &destination, workload, arrival, address)
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
            None => self.through_tunnel(workload, address, record).await,
        }
    }

    async fn through_tunnel(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
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
                host: None,
            },
            baggage: Some(baggage::of(self.source, CLUSTER)),
            traceparent: Some(traceparent()),
        };
        let (broker, pod, within) = (context.broker.clone(), self.pod.id, context.tunnel.connect);
        let dial = move || -> futures_util::future::BoxFuture<'static, std::io::Result<TcpStream>> {
            Box::pin(async move {
                dial::egress(&broker, pod, peer, within)
                    .await
                    .map_err(DialError::into_io)
            })
        };
        let tls = certificate.client_config(&workload.identity);
        context
            .pool
            .open(&key, tls, certificate.not_after(), dial, request)
            .await
            .map(Far::Tunnel)
            .map_err(|error: TunnelError| Outcome::new(error.reason()).with_detail(error.to_string()))
    }

    async fn outside(&self, address: SocketAddr) -> Result<Far, Outcome> {
        dial::egress(
            &self.context.broker,
            self.pod.id,
            address,
            self.context.waits.egress,
        )
        .await
        .map(Far::Outside)
        .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))
    }
}

async fn carry(context: &Context, client: TcpStream, far: Far, record: &OpenConnection) -> Outcome {
    match far {
        Far::Tunnel(stream) => outcome(tunnel::relay(client, stream, Side::Source, record.counters()).await),
        Far::Outside(server) => outcome(tunnel::relay_tcp(client, server, record.counters()).await),
        Far::SameNode {
            application,
            inbound,
            decided,
        } => {
            let relay = tunnel::relay_tcp(client, application, record.counters());
            let end = relay_while_allowed(context, &decided, relay).await;
            inbound.finish(end.clone());
            end
        }
    }
}

/// Whether another endpoint of the same Service may do better.
fn is_about_endpoint(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectRefused
            | Reason::ConnectTimeout
            | Reason::ConnectUnreachable
            | Reason::HandshakeTimeout
    )
}

/// A trace of its own for each connection, not sampled (W3C Trace Context 3.2).
fn traceparent() -> String {
    // An all-zero id would be invalid.
    format!(
        "00-{:016x}{:016x}-{:016x}-00",
        random::u64(),
        random::u64() | 1,
        random::u64() | 1
    )
}

pub(crate) fn outcome(end: RelayEnd) -> Outcome {
    let outcome = Outcome::new(end.reason);
    match end.detail {
        Some(detail) => outcome.with_detail(detail),
        None => outcome,
    }
}

fn opening(source: Option<Arc<Workload>>, original: OriginalDst, client: ClientAddr) -> ConnectionInfo {
    ConnectionInfo {
        reporter: Reporter::Source,
        path: Path::Passthrough,
        security_policy: SecurityPolicy::Unknown,
        source_identity: source.as_ref().map(|source| source.identity.clone()),
        source,
        source_address: client.0,
        destination: None,
        destination_address: original.0,
        hbone_address: None,
        original_destination: original.0,
        destination_identity: None,
        service: None,
    }
}
