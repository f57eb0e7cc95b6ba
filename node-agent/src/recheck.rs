//! Live connections follow the configuration: one that the present snapshot forbids is cut, at both ends.

use crate::{
    current::Current,
    inbound,
    observe::Outcome,
    outbound,
    tunnel::{RelayEnd, ResetWith},
};
use std::net::{IpAddr, SocketAddr};
use tramline_core::{authz, identity::SpiffeId, reason::Reason, workload::WorkloadUid};

/// What was decided about a connection, and by which snapshot.
pub(crate) struct Decided {
    /// Generation of the snapshot.
    pub(crate) generation: u64,
    /// The proven source, `None` in plaintext.
    pub(crate) source: Option<SpiffeId>,
    /// The source's address.
    pub(crate) source_address: IpAddr,
    /// The workload of this node that was dialled.
    pub(crate) destination: WorkloadUid,
    /// Its address and port.
    pub(crate) destination_address: SocketAddr,
}

/// Relays until the end, or until a snapshot forbids the connection. Dropping the relay resets both ends; through
/// `reset` the agent at the other end learns why.
pub(crate) async fn relay_while_allowed(
    current: &Current,
    decided: &Decided,
    reset: Option<&ResetWith>,
    relay: impl Future<Output = RelayEnd>,
) -> Outcome {
    let mut generations = current.subscribe();
    tokio::pin!(relay);
    let cut = |refusal: Outcome| {
        if let Some(reset) = reset {
            reset.reason(refusal.reason);
        }
        refusal
    };
    // A snapshot may have come between the decision and the subscription.
    if *generations.borrow_and_update() != decided.generation
        && let Some(refusal) = forbidden(current, decided)
    {
        return cut(refusal);
    }
    loop {
        tokio::select! {
            end = &mut relay => return outbound::outcome(end),
            Ok(()) = generations.changed() => {
                if let Some(refusal) = forbidden(current, decided) {
                    return cut(refusal);
                }
            }
        }
    }
}

fn forbidden(current: &Current, decided: &Decided) -> Option<Outcome> {
    let mesh = current.load();
    let Some(destination) = mesh.workload(&decided.destination) else {
        return Some(Reason::UnknownWorkload.into());
    };
    let decision = authz::decide(
        &mesh,
        &authz::Connection {
            source: decided.source.as_ref(),
            source_address: decided.source_address,
            destination,
            destination_address: decided.destination_address,
        },
    );
    (!decision.is_allow()).then(|| inbound::denial(&decision))
}
