//! The life of a connection that a pod of this node opens.
//!
//! `accept` what it dialled → `route` where that leads → open the far half (same node, tunnel, or as it is), unless the
//! client leaves meanwhile → `relay` → one record.

mod client;
mod open;

use self::open::Dialled;
use crate::{
    accept::{self, ClientAddr, OriginalDst},
    context::Context,
    observe::{ConnectionInfo, OpenConnection, Outcome, Path, Reporter, SecurityPolicy},
    pods::LocalPod,
    random,
    recheck::{Decided, Outside, relay_while_allowed, relay_while_outside},
    tunnel::{self, RelayEnd, Side, TunnelStream},
    verdicts::Verdicts,
};
use std::sync::Arc;
use tokio::net::TcpStream;
use tramline_core::{reason::Reason, trace::TraceId, workload::Workload};

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
    Outside {
        server: TcpStream,
        /// `None` for an endpoint that is no workload and has the address of a Service: it never was outside.
        decided: Option<Outside>,
    },
}

/// Carries one captured connection from accept to close.
pub(crate) async fn serve(context: Arc<Context>, pod: Arc<LocalPod>, socket: TcpStream) {
    let Ok((original, client)) = accept::addresses(&socket) else {
        return;
    };
    let mesh = context.mesh.load_full();
    let source = mesh.workload(&pod.uid).cloned();
    let trace = TraceId::new(random::u64(), random::u64());
    let record = context
        .observer
        .open(opening(source.clone(), original, client, trace));
    let Some(source) = source else {
        accept::abort(socket);
        return record.finish(Reason::UnknownWorkload);
    };
    let picked = accept::picked(&socket).and_then(|index| context.verdicts.picked(pod.id, original.0, index));
    let dialled = Dialled {
        context: &context,
        mesh: mesh.clone(),
        pod: &pod,
        source: source.clone(),
        original,
        client,
        picked,
        trace,
    };
    let opened = tokio::select! {
        biased;
        opened = dialled.open(&record) => opened,
        left = client::left(&context.broker, pod.id, &socket, original, client) => Err(left),
    };
    let reached = opened.as_ref().ok().map(|(_, live)| live.endpoint());
    Verdicts::consider(&context, &mesh, &pod, &source, original.0, reached);
    // A connection may live for days; the snapshot it was decided by must not.
    drop((source, mesh));
    match opened {
        Ok((far, live)) => {
            record.established();
            let end = carry(&context, socket, far, &record).await;
            drop(live);
            record.finish(end);
        }
        Err(refusal) => {
            accept::abort(socket);
            record.finish(refusal);
        }
    }
}

async fn carry(context: &Context, client: TcpStream, far: Far, record: &OpenConnection) -> Outcome {
    match far {
        Far::Tunnel(stream) => outcome(tunnel::relay(client, stream, Side::Source, record.counters()).await),
        Far::Outside { server, decided } => {
            let relay = tunnel::relay_tcp(client, server, record.counters());
            match decided {
                Some(decided) => relay_while_outside(&context.mesh, &decided, relay).await,
                None => outcome(relay.await),
            }
        }
        Far::SameNode {
            application,
            inbound,
            decided,
        } => {
            let relay = tunnel::relay_tcp(client, application, record.counters());
            let end = relay_while_allowed(&context.mesh, &decided, None, relay).await;
            inbound.finish(end.clone());
            end
        }
    }
}

pub(crate) fn outcome(end: RelayEnd) -> Outcome {
    let outcome = Outcome::new(end.reason);
    match end.detail {
        Some(detail) => outcome.with_detail(detail),
        None => outcome,
    }
}

fn opening(
    source: Option<Arc<Workload>>,
    original: OriginalDst,
    client: ClientAddr,
    trace: TraceId,
) -> ConnectionInfo {
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
        trace: Some(trace),
        kernel: None,
        dry_run: None,
        claimed_cluster: None,
    }
}
