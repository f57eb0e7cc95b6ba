//! Connections that the kernel let pass and that the configuration now forbids.

use crate::{broker::PassedConnection, context::Context, inbound, observe::Outcome, recheck::not_outside};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tramline_common::PodId;
use tramline_core::{authz, mesh::Mesh, reason::Reason};

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
    context.verdicts.cut.note(connection.socket, why);
    if let Err(error) = context.broker.cut(connection) {
        context.verdicts.cut.take(connection.socket);
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

/// Why the snapshot does not let the connection be; one whose pods are not known is not decided here: they are released, and
/// what becomes of their sockets is their own affair.
fn refusal(context: &Context, mesh: &Mesh, connection: &PassedConnection) -> Option<Outcome> {
    let of = |pod| {
        context
            .pods
            .by_id(pod)
            .map(|pod| mesh.workload(&pod.uid).cloned())
    };
    let source = match of(connection.source)? {
        Some(source) => source,
        None => return Some(Reason::UnknownWorkload.into()),
    };
    let Some(destination) = connection.destination else {
        return not_outside(mesh, &source, connection.server);
    };
    let destination = match of(destination)? {
        Some(destination) => destination,
        None => return Some(Reason::UnknownWorkload.into()),
    };
    let decision = authz::decide(
        mesh,
        &authz::Connection {
            source: Some(&source.identity),
            source_address: connection.client.ip(),
            destination: &destination,
            destination_address: connection.server,
        },
    );
    (!decision.is_allow()).then(|| inbound::denial(&decision))
}
