//! Refusals in the kernel as lines of the access log: no socket of the agent ever saw these connections.

use super::handover;
use crate::{
    broker::Ring,
    context::Context,
    inbound,
    kernel::events::Events,
    observe::{ConnectionInfo, Outcome, Path, Reporter},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tramline_common::event::{Event, kind};
use tramline_core::{authz, reason::Reason};

/// Events found at once that count as a flood: at most 2,560 lines a second are written then.
const FLOOD: usize = 128;
/// Between batches of a flood; what the ring buffer has no room for meanwhile is counted as lost.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads events for the life of the agent, while it is on duty: of two readers each would miss some.
pub(super) async fn log(context: Arc<Context>) {
    // A refusal is told and counted by the names of pods: those of an agent that starts are not known yet. Where there is no
    // configuration, there are none.
    let _ = tokio::time::timeout(context.waits.enrolment, context.verdicts.wait_settled()).await;
    let mut events = context.broker.events();
    loop {
        match events {
            Some(Ok(mut events)) => {
                tokio::select! {
                    () = read(&context, &mut events) => return,
                    () = context.duty.left() => {}
                }
                // The pods' own programs are replaced one after the other.
                if handover::is_left(&context, Ring::Events).await {
                    tokio::select! {
                        () = read(&context, &mut events) => return,
                        () = context.duty.resumed() => {}
                    }
                }
            }
            Some(Err(error)) => return tracing::error!(%error, "cannot wait for the programs' events"),
            None => return,
        }
        context.duty.resumed().await;
        events = match context.broker.events_again() {
            Ok(again) => Some(again),
            Err(error) => return tracing::error!(%error, "cannot read the programs' events again"),
        };
    }
}

async fn read(context: &Context, events: &mut Events) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if let Err(error) = events.read(&mut batch).await {
            return tracing::error!(%error, "cannot read the programs' events");
        }
        for event in &batch {
            record(context, event);
        }
        // Anyone who can send a SYN can make an event. A flood of them is counted by the programs; writing it out must
        // not take a processor from connections.
        if batch.len() >= FLOOD {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn record(context: &Context, event: &Event) {
    let mesh = context.mesh.load();
    let remote = SocketAddr::new(event.remote.into(), event.remote_port);
    let local = SocketAddr::new(event.local.into(), event.local_port);
    let pod = context
        .pods
        .by_id(event.pod)
        .and_then(|pod| mesh.workload(&pod.uid).cloned());
    let by_pod = pod
        .as_ref()
        .is_some_and(|pod| pod.addresses.contains(&remote.ip()));
    let outbound = by_pod || event.kind == kind::CAPTURE_FAILED;
    let outcome = match (event.kind, &pod) {
        (kind::PLAINTEXT_DROPPED, Some(pod)) => plaintext_refused(&mesh, remote, local, pod),
        (kind::PLAINTEXT_DROPPED, None) => Outcome::new(Reason::UnknownWorkload),
        (kind::NO_LISTENER, _) => Outcome::new(Reason::Internal).with_detail("no agent was listening"),
        (kind::CAPTURE_FAILED, _) => {
            Outcome::new(Reason::Internal).with_detail("the connect could not be captured and was refused")
        }
        (kind::REGISTRY_FULL, _) => {
            Outcome::new(Reason::LimitReached).with_detail("the registry of deliveries is full")
        }
        (kind::FORGED, _) => Outcome::new(Reason::PolicyDenied).with_detail("source address forged"),
        (other, _) => Outcome::new(Reason::Internal).with_detail(format!("event {other} of the programs")),
    };
    let info = if outbound {
        ConnectionInfo {
            reporter: Reporter::Source,
            path: Path::Passthrough,
            source_identity: pod.as_ref().map(|source| source.identity.clone()),
            source: pod,
            ..ConnectionInfo::plaintext(None, remote, local)
        }
    } else {
        ConnectionInfo::plaintext(pod, remote, local)
    };
    context.observer.open(info).finish(outcome);
}

/// The same question that filled the kernel's row, asked again for its answer in words.
fn plaintext_refused(
    mesh: &tramline_core::mesh::Mesh,
    remote: SocketAddr,
    local: SocketAddr,
    destination: &tramline_core::workload::Workload,
) -> Outcome {
    let decision = authz::decide(
        mesh,
        &authz::Connection {
            source: None,
            source_address: remote.ip(),
            destination,
            destination_address: local,
        },
    );
    if decision.is_allow() {
        return Outcome::new(Reason::MtlsRequired)
            .with_detail("refused by the configuration before the present one");
    }
    inbound::denial(&decision)
}
