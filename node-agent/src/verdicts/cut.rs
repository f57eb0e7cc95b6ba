//! Connections that the kernel let pass and that the configuration now forbids.

use crate::{
    broker::{BrokerError, PassedConnection},
    context::Context,
    inbound,
    observe::Outcome,
    recheck::not_outside,
};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tramline_common::PodId;
use tramline_core::{authz, identity::SpiffeId, mesh::Mesh, reason::Reason, workload::Workload};

/// After this long a system call that was under way has ended.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// Connections whose end has not been seen yet, at most; what is beyond has its line without the reason.
const MAX_PENDING: usize = 65_536;

/// Why connections were cut, by the cookie of the dialling socket, until their end is told.
#[derive(Default)]
pub(crate) struct Cut {
    pending: Mutex<HashMap<u64, Outcome>>,
}

impl Cut {
    /// Why the connection was cut, if it was.
    pub(crate) fn take(&self, socket: u64) -> Option<Outcome> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.remove(&socket)
    }

    /// Notes why a connection is cut while `cut` does it; not if it was over by then, and its end told already.
    fn with(
        &self,
        socket: u64,
        why: Outcome,
        cut: impl FnOnce() -> Result<usize, BrokerError>,
    ) -> Result<(), BrokerError> {
        self.note(socket, why);
        let done = cut();
        if !matches!(done, Ok(ended) if ended > 0) {
            self.take(socket);
        }
        done.map(drop)
    }

    fn note(&self, socket: u64, why: Outcome) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() < MAX_PENDING {
            pending.insert(socket, why);
        }
    }
}

/// Ends every live connection that `mesh` forbids.
pub(super) fn forbidden(context: &Context, mesh: &Mesh) {
    for connection in context.broker.passed() {
        let Some(why) = refusal(context, mesh, &connection) else {
            continue;
        };
        end(context, &connection, why);
    }
}

fn end(context: &Context, connection: &PassedConnection, why: Outcome) {
    if let Err(error) = context
        .verdicts
        .cut
        .with(connection.socket, why, || context.broker.cut(connection))
    {
        tracing::error!(
            %error, client = %connection.client, server = %connection.server,
            "cannot end a connection that must not go on"
        );
    }
}

/// Ends the live connections of a pod that go by ways which are not known to stay on this node any more: they are in
/// plaintext.
pub(super) fn strayed(context: &Context, source: PodId, lost: &BTreeSet<(PodId, IpAddr)>) {
    if lost.is_empty() {
        return;
    }
    let strays = context.broker.passed().into_iter().filter(|connection| {
        let way = connection.destination.map(|to| (to, connection.server.ip()));
        connection.source == source && way.is_some_and(|way| lost.contains(&way))
    });
    for connection in strays {
        let why = "its way is not known to stay on this node any more";
        end(
            context,
            &connection,
            Outcome::new(Reason::Cancelled).with_detail(why),
        );
    }
}

/// A connect that was let pass just before its verdict was taken back may have been noted after the first look. (Between two
/// pods of this node such a connect is noticed when its SYN arrives.)
pub(super) fn once_more(context: &Arc<Context>) {
    let context = context.clone();
    tokio::spawn(async move {
        tokio::time::sleep(SECOND_LOOK).await;
        let (_writing, mesh) = context.mesh.to_follow(&context.duty).await;
        if context.duty.is_on() {
            forbidden(&context, &mesh);
        }
    });
}

/// Why the snapshot does not let the connection be. Until the pods have been enrolled after another agent, nobody can say whose
/// one is whose pod is not known; after that, such a pod has left the mesh, and the other end is judged by itself.
fn refusal(context: &Context, mesh: &Mesh, connection: &PassedConnection) -> Option<Outcome> {
    let of = |pod| match context.pods.by_id(pod) {
        Some(pod) => mesh.workload(&pod.uid).cloned().map_or(End::Gone, End::Known),
        None => End::Left,
    };
    let settled = !context.verdicts.others.load(Ordering::Relaxed);
    let source = of(connection.source);
    let destination = connection.destination.map(of);
    match (&source, &destination) {
        (End::Gone, _) | (End::Known(_), Some(End::Gone)) => Some(Reason::UnknownWorkload.into()),
        (End::Known(source), None) => not_outside(mesh, source, connection.server),
        (End::Known(source), Some(End::Left)) if settled => not_outside(mesh, source, connection.server),
        (End::Known(source), Some(End::Known(destination))) => {
            denial(mesh, connection, Some(&source.identity), destination)
        }
        // Its plaintext, as it would be if it came now.
        (End::Left, Some(End::Known(destination)))
            if settled
                && !destination
                    .capture
                    .inbound_ports
                    .contains(&connection.server.port()) =>
        {
            denial(mesh, connection, None, destination)
        }
        _ => None,
    }
}

/// A pod at the end of a connection.
enum End {
    /// An enrolled one.
    Known(Arc<Workload>),
    /// An enrolled one that the snapshot does not name.
    Gone,
    /// None that is enrolled.
    Left,
}

fn denial(
    mesh: &Mesh,
    connection: &PassedConnection,
    source: Option<&SpiffeId>,
    destination: &Workload,
) -> Option<Outcome> {
    let decision = authz::decide(
        mesh,
        &authz::Connection {
            source,
            source_address: connection.client.ip(),
            destination,
            destination_address: connection.server,
        },
    );
    (!decision.is_allow()).then(|| inbound::denial(&decision))
}

#[cfg(test)]
mod tests {
    use super::Cut;
    use crate::{broker::BrokerError, observe::Outcome};
    use tramline_core::reason::Reason;

    #[test]
    fn why_is_kept_for_what_is_cut_and_for_nothing_else() {
        let cut = Cut::default();
        let why = || Outcome::new(Reason::PolicyDenied);
        cut.with(1, why(), || Ok(2)).unwrap();
        cut.with(2, why(), || Ok(0)).unwrap();
        cut.with(3, why(), || Err(BrokerError::NotEnrolled(3)))
            .unwrap_err();
        assert!(cut.take(1).is_some());
        assert!(cut.pending.lock().unwrap().is_empty());
    }
}
