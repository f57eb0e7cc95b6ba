//! Live connections follow the configuration: one that the present snapshot forbids is cut, at both ends.

use crate::{
    current::Current,
    inbound,
    observe::Outcome,
    outbound,
    tunnel::{RelayEnd, ResetWith},
};
use std::net::{IpAddr, SocketAddr};
use tramline_core::{
    authz,
    identity::SpiffeId,
    mesh::Mesh,
    reason::Reason,
    verdict::{KernelVerdict, kernel_verdict},
    workload::{Workload, WorkloadUid},
};

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

/// A connection that leaves the mesh, and the snapshot that it was decided by.
pub(crate) struct Outside {
    /// Generation of the snapshot.
    pub(crate) generation: u64,
    /// The workload of this node that dialled.
    pub(crate) source: WorkloadUid,
    /// Where it leads.
    pub(crate) address: SocketAddr,
}

/// Relays until the end, or until a snapshot forbids the connection. Dropping the relay resets both ends; through
/// `reset` the agent at the other end learns why.
pub(crate) async fn relay_while_allowed(
    current: &Current,
    decided: &Decided,
    reset: Option<&ResetWith>,
    relay: impl Future<Output = RelayEnd>,
) -> Outcome {
    let forbidden = |mesh: &Mesh| {
        let refusal = forbidden(mesh, decided)?;
        if let Some(reset) = reset {
            reset.reason(refusal.reason);
        }
        Some(refusal)
    };
    relay_until(current, decided.generation, relay, forbidden).await
}

/// Relays until the end, or until the address is of the mesh: who is there is then to be asked for, and what is said to be
/// encrypted.
pub(crate) async fn relay_while_outside(
    current: &Current,
    decided: &Outside,
    relay: impl Future<Output = RelayEnd>,
) -> Outcome {
    let joined = |mesh: &Mesh| match mesh.workload(&decided.source) {
        None => Some(Reason::UnknownWorkload.into()),
        Some(source) => not_outside(mesh, source, decided.address),
    };
    relay_until(current, decided.generation, relay, joined).await
}

/// Why a connection of `source` to there leaves the mesh no longer, if so.
pub(crate) fn not_outside(mesh: &Mesh, source: &Workload, address: SocketAddr) -> Option<Outcome> {
    let outside = kernel_verdict(mesh, source, address) == Some(KernelVerdict::Outside);
    let why = "the address it leads to is of the mesh now";
    (!outside).then(|| Outcome::new(Reason::MtlsRequired).with_detail(why))
}

async fn relay_until(
    current: &Current,
    generation: u64,
    relay: impl Future<Output = RelayEnd>,
    refusal: impl Fn(&Mesh) -> Option<Outcome>,
) -> Outcome {
    let mut generations = current.subscribe();
    tokio::pin!(relay);
    // A snapshot may have come between the decision and the subscription.
    if *generations.borrow_and_update() != generation
        && let Some(refusal) = refusal(&current.load())
    {
        return refusal;
    }
    loop {
        tokio::select! {
            end = &mut relay => return outbound::outcome(end),
            Ok(()) = generations.changed() => {
                if let Some(refusal) = refusal(&current.load()) {
                    return refusal;
                }
            }
        }
    }
}

fn forbidden(mesh: &Mesh, decided: &Decided) -> Option<Outcome> {
    let Some(destination) = mesh.workload(&decided.destination) else {
        return Some(Reason::UnknownWorkload.into());
    };
    let decision = authz::decide(
        mesh,
        &authz::Connection {
            source: decided.source.as_ref(),
            source_address: decided.source_address,
            destination,
            destination_address: decided.destination_address,
        },
    );
    (!decision.is_allow()).then(|| inbound::denial(&decision))
}
