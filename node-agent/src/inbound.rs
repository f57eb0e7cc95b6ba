//! The life of a connection towards a pod of this node: from a tunnel, from another pod of this node, or in
//! plaintext from outside the mesh.
//!
//! Who is it, may it, to which application; the first byte reaches the application after all three are answered.

use crate::{
    accept::{self, ClientAddr, OriginalDst},
    context::Context,
    dial::{self, Client},
    observe::{ConnectionInfo, OpenConnection, Outcome, Path, Reporter, SecurityPolicy},
    pods::LocalPod,
    recheck::{Decided, relay_while_allowed},
    tunnel::{self, Handshake, HboneConnection, InboundRequest, Served, Side},
};
use http::StatusCode;
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;
use tramline_core::{
    admit, authz, baggage,
    cluster::ClusterName,
    counters::ByteCounters,
    identity::SpiffeId,
    mesh::Mesh,
    reason::Reason,
    service::{Endpoint, Service},
    trace::TraceId,
    workload::Workload,
};

/// From the moment another agent has the kernel: by then it has the pod's listeners too, so that the tunnels which other
/// nodes open instead of these do not end here again.
pub(crate) const SUCCESSION: Duration = Duration::from_secs(5);

/// A connection whose source is proven.
pub(crate) struct Arrival<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) path: Path,
    pub(crate) source: Option<Arc<Workload>>,
    /// Where the source's agent says it is: nothing proves that.
    pub(crate) claimed_cluster: Option<ClusterName>,
    pub(crate) identity: SpiffeId,
    pub(crate) client: SocketAddr,
    pub(crate) original: SocketAddr,
    pub(crate) service: Option<Arc<Service>>,
    /// Where both records of one connection meet.
    pub(crate) trace: Option<TraceId>,
    /// The source's counters, where one relay serves both records.
    pub(crate) counters: Arc<ByteCounters>,
}

/// From another pod of this node, whose identity the agent knows by its namespace. Opens the destination's record.
pub(crate) async fn from_this_node(
    context: &Context,
    pod: &LocalPod,
    destination: &Arc<Workload>,
    arrival: Arrival<'_>,
    address: SocketAddr,
    within: Duration,
) -> Result<(TcpStream, OpenConnection), Outcome> {
    let record = context
        .observer
        .open_with(arriving(&arrival, destination, address), arrival.counters.clone());
    let opened = match authorize(
        &record,
        arrival.mesh,
        Some(&arrival.identity),
        arrival.client.ip(),
        destination,
        address,
    ) {
        Ok(()) => to_application(context, pod, &Client::Exactly(arrival.client), address, within).await,
        Err(refusal) => Err(refusal),
    };
    match opened {
        Ok(application) => {
            record.established();
            Ok((application, record))
        }
        Err(refusal) => {
            record.finish(refusal.clone());
            Err(refusal)
        }
    }
}

/// From another node: one TCP connection to port 15008, many streams.
pub(crate) async fn tunnel(
    context: Arc<Context>,
    pod: Arc<LocalPod>,
    socket: TcpStream,
    unproven: Handshake,
) {
    let Ok((OriginalDst(local), ClientAddr(peer))) = accept::addresses(&socket) else {
        return;
    };
    let workload = context.mesh.load().workload(&pod.uid).cloned();
    let proven = handshake(&context, workload.as_deref(), socket).await;
    drop(unproven);
    let proven = proven.and_then(|connection| {
        let slot = pod.slot(&context).ok_or(Reason::LimitReached)?;
        Ok((connection, slot))
    });
    let (mut connection, _slot) = match proven {
        Ok(proven) => proven,
        Err(refusal) => {
            // There is no stream to speak of: one line says who tried.
            let record = context.observer.open(turned_away(workload, None, peer, local));
            return record.finish(refusal);
        }
    };
    let identity = connection.peer().clone();
    let mut closing = false;
    let mut successor = Box::pin(context.duty.left_for(SUCCESSION));
    loop {
        let request = tokio::select! {
            request = connection.accept() => request,
            () = pod.gone.cancelled() => None,
            // What is open goes on; what comes next is the successor's.
            () = &mut successor, if !closing => {
                closing = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(request) = request else { return };
        let (context, owner, identity) = (context.clone(), pod.clone(), identity.clone());
        pod.spawn(async move { stream(&context, &owner, identity, peer, request).await });
    }
}

async fn handshake(
    context: &Context,
    workload: Option<&Workload>,
    socket: TcpStream,
) -> Result<HboneConnection, Outcome> {
    let workload = workload.ok_or(Reason::UnknownWorkload)?;
    let certificate = context
        .certificates
        .get(&workload.identity)
        .await
        .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))?;
    tunnel::serve(
        socket,
        Served::with(&certificate),
        &context.tunnel,
        context.tunnel_stats.clone(),
    )
    .await
    .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))
}

/// One stream of a tunnel: one connection of an application on another node.
async fn stream(
    context: &Context,
    pod: &LocalPod,
    identity: SpiffeId,
    peer: SocketAddr,
    request: InboundRequest,
) {
    let mesh = context.mesh.load_full();
    let destination = mesh.workload(&pod.uid).cloned();
    let (_slot, destination) = match (pod.slot(context), destination) {
        (Some(slot), Some(destination)) => (slot, destination),
        (slot, destination) => {
            let reason = match slot {
                Some(_) => Reason::UnknownWorkload,
                None => Reason::LimitReached,
            };
            let address = request.authority().parse().unwrap_or(peer);
            let mut info = turned_away(destination, Some(identity), peer, address);
            info.trace = request.traceparent().and_then(TraceId::of_traceparent);
            info.claimed_cluster = request.baggage().and_then(baggage::cluster);
            request.refuse(StatusCode::SERVICE_UNAVAILABLE, reason);
            return context.observer.open(info).finish(reason);
        }
    };
    let client = client_of(&mesh, &identity, peer, request.forwarded_for());
    let target = admit::inbound_target(&destination, request.authority());
    let arrival = Arrival {
        mesh: &mesh,
        path: Path::Hbone,
        source: mesh
            .workload_by_address(client.ip())
            .filter(|source| are_one(&mesh, &source.identity, &identity))
            .cloned(),
        claimed_cluster: request.baggage().and_then(baggage::cluster),
        identity,
        client,
        original: *target.as_ref().unwrap_or(&peer),
        service: request
            .forwarded_host()
            .and_then(|host| service_of(&mesh, host, &target)),
        trace: request.traceparent().and_then(TraceId::of_traceparent),
        counters: Arc::default(),
    };
    let address = *target.as_ref().unwrap_or(&peer);
    let record = context.observer.open_with(
        arriving(&arrival, &destination, address),
        arrival.counters.clone(),
    );
    let opened = match &target {
        Err(error) => Err((
            StatusCode::BAD_REQUEST,
            Outcome::new(error.reason()).with_detail(error.to_string()),
        )),
        Ok(target) => match authorize(
            &record,
            &mesh,
            Some(&arrival.identity),
            client.ip(),
            &destination,
            *target,
        ) {
            Err(refusal) => Err((StatusCode::UNAUTHORIZED, refusal)),
            Ok(()) => to_application(
                context,
                pod,
                &Client::Exactly(client),
                *target,
                context.waits.application,
            )
            .await
            .map_err(|refusal| (StatusCode::SERVICE_UNAVAILABLE, refusal)),
        },
    };
    let decided = Decided {
        generation: mesh.generation(),
        source: Some(arrival.identity),
        source_address: client.ip(),
        destination: pod.uid.clone(),
        destination_address: address,
    };
    // A connection may live for days; the snapshot it was decided by must not.
    drop(mesh);
    match opened {
        Err((status, refusal)) => {
            request.refuse(status, refusal.reason);
            record.finish(refusal);
        }
        Ok(application) => match request.accept() {
            Err(error) => {
                accept::abort(application);
                record.finish(Outcome::new(error.reason()).with_detail(error.to_string()));
            }
            Ok(stream) => {
                record.established();
                let reset = stream.reset_with();
                let relay = tunnel::relay(application, stream, Side::Destination, record.counters());
                let end = relay_while_allowed(&context.mesh, &decided, Some(&reset), relay).await;
                record.finish(end);
            }
        },
    }
}

/// In plaintext, on a port whose policies look at the source's address.
pub(crate) async fn plaintext(context: Arc<Context>, pod: Arc<LocalPod>, socket: TcpStream) {
    let Ok((OriginalDst(address), ClientAddr(client))) = accept::addresses(&socket) else {
        return;
    };
    let neighbour = from_neighbour(&context, &pod, client, address).await;
    let mesh = context.mesh.load_full();
    let destination = mesh.workload(&pod.uid).cloned();
    let direct = neighbour.and_then(|source| mesh.workload(&source.uid).cloned());
    let identity = direct.as_ref().map(|source| source.identity.clone());
    let unproven = ConnectionInfo::plaintext(destination.clone(), client, address);
    let record = context.observer.open(match direct {
        Some(source) => ConnectionInfo {
            path: Path::SameNode,
            security_policy: SecurityPolicy::MutualTls,
            source: Some(source),
            source_identity: identity.clone(),
            ..unproven
        },
        None => ConnectionInfo {
            source: mesh.workload_by_address(client.ip()).cloned(),
            ..unproven
        },
    });
    let _port = pod.plaintext_ports.hold(client, address);
    let taken = |port| {
        pod.plaintext_ports
            .is_held(SocketAddr::new(client.ip(), port), address)
    };
    let opened = match destination {
        None => Err(Reason::UnknownWorkload.into()),
        Some(destination) => match authorize(
            &record,
            &mesh,
            identity.as_ref(),
            client.ip(),
            &destination,
            address,
        ) {
            Err(refusal) => Err(refusal),
            Ok(()) => {
                to_application(
                    &context,
                    &pod,
                    &Client::Address(client.ip(), &taken),
                    address,
                    context.waits.application,
                )
                .await
            }
        },
    };
    let decided = Decided {
        generation: mesh.generation(),
        source: identity,
        source_address: client.ip(),
        destination: pod.uid.clone(),
        destination_address: address,
    };
    drop(mesh);
    match opened {
        Ok(application) => {
            record.established();
            let relay = tunnel::relay_tcp(socket, application, record.counters());
            let end = relay_while_allowed(&context.mesh, &decided, None, relay).await;
            record.finish(end);
        }
        Err(refusal) => {
            accept::abort(socket);
            record.finish(refusal);
        }
    }
}

/// The pod of this node that opened a connection which the kernel let pass, and which something changed for before it
/// arrived: proven, as its 4-tuple was noted when its own socket dialled.
///
/// An agent that starts may have the listener of this pod before it knows that one.
async fn from_neighbour(
    context: &Context,
    pod: &LocalPod,
    client: SocketAddr,
    address: SocketAddr,
) -> Option<Arc<LocalPod>> {
    let source = context.broker.direct_source(pod.id, client, address)?;
    context
        .once_enrolled(context.waits.enrolment, |pods| pods.by_id(source))
        .await
}

/// Decides, and notes in `record` what the dry-run policies would have made of it.
fn authorize(
    record: &OpenConnection,
    mesh: &Mesh,
    source: Option<&SpiffeId>,
    source_address: IpAddr,
    destination: &Workload,
    destination_address: SocketAddr,
) -> Result<(), Outcome> {
    let connection = authz::Connection {
        source,
        source_address,
        destination,
        destination_address,
    };
    if let Some(dry_run) = authz::dry_run(mesh, &connection) {
        record.learn(|info| info.dry_run = Some(Arc::new(dry_run)));
    }
    let decision = authz::decide(mesh, &connection);
    if decision.is_allow() {
        Ok(())
    } else {
        Err(denial(&decision))
    }
}

/// The outcome that a denial is logged with.
pub(crate) fn denial(decision: &authz::Decision) -> Outcome {
    let outcome = Outcome::new(decision.reason()).with_detail(decision.to_string());
    match decision.policy() {
        Some(policy) => outcome.with_policy(policy.to_string()),
        None => outcome,
    }
}

async fn to_application(
    context: &Context,
    pod: &LocalPod,
    client: &Client<'_>,
    address: SocketAddr,
    within: Duration,
) -> Result<TcpStream, Outcome> {
    dial::application(&context.broker, pod.id, client, address, within)
        .await
        .map_err(|error| Outcome::new(error.reason()).with_detail(error.to_string()))
}

/// Whether what a certificate proves is who the configuration says.
fn are_one(mesh: &Mesh, workload: &SpiffeId, proven: &SpiffeId) -> bool {
    mesh.settings().trust_domains.are_one(workload, proven)
}

/// The client's address as the application shall see it: the one claimed, if it belongs to the proven identity,
/// else the one the tunnel comes from.
fn client_of(mesh: &Mesh, identity: &SpiffeId, peer: SocketAddr, claimed: Option<SocketAddr>) -> SocketAddr {
    let belongs = |claimed: &SocketAddr| {
        mesh.workload_by_address(claimed.ip())
            .is_some_and(|workload| are_one(mesh, &workload.identity, identity))
    };
    match claimed {
        Some(claimed) if belongs(&claimed) => claimed,
        // Its port is the tunnel's, not the client's.
        _ => SocketAddr::new(peer.ip(), 0),
    }
}

/// The Service that the client dialled, as its agent tells it: one that the target belongs to, or none. For telemetry
/// only, and nothing that a peer could make up.
fn service_of(
    mesh: &Mesh,
    host: &str,
    target: &Result<SocketAddr, admit::AdmitError>,
) -> Option<Arc<Service>> {
    let target = target.as_ref().ok()?;
    let service = mesh.service_by_hostname(host)?;
    let serves = |endpoint: &Endpoint| {
        endpoint.address == target.ip() && endpoint.ports.iter().any(|(_, port)| *port == target.port())
    };
    service.endpoints.iter().any(serves).then(|| service.clone())
}

/// What is known of somebody who is refused before anything is looked up.
fn turned_away(
    destination: Option<Arc<Workload>>,
    identity: Option<SpiffeId>,
    peer: SocketAddr,
    address: SocketAddr,
) -> ConnectionInfo {
    ConnectionInfo {
        reporter: Reporter::Destination,
        path: Path::Hbone,
        security_policy: match identity {
            Some(_) => SecurityPolicy::MutualTls,
            None => SecurityPolicy::Unknown,
        },
        source: None,
        source_address: peer,
        source_identity: identity,
        destination_identity: destination
            .as_ref()
            .map(|destination| destination.identity.clone()),
        destination,
        destination_address: address,
        hbone_address: None,
        original_destination: address,
        service: None,
        trace: None,
        kernel: None,
        dry_run: None,
        claimed_cluster: None,
    }
}

fn arriving(arrival: &Arrival<'_>, destination: &Arc<Workload>, address: SocketAddr) -> ConnectionInfo {
    ConnectionInfo {
        reporter: Reporter::Destination,
        path: arrival.path,
        security_policy: SecurityPolicy::MutualTls,
        source: arrival.source.clone(),
        source_address: arrival.client,
        source_identity: Some(arrival.identity.clone()),
        destination: Some(destination.clone()),
        destination_address: address,
        hbone_address: (arrival.path == Path::Hbone).then_some(address),
        original_destination: arrival.original,
        destination_identity: Some(destination.identity.clone()),
        service: arrival.service.clone(),
        trace: arrival.trace,
        kernel: None,
        dry_run: None,
        claimed_cluster: arrival.claimed_cluster.clone(),
    }
}
