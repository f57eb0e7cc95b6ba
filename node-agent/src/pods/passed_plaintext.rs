//! Plaintext that the kernel let in before a change which forbids it: ended like every other connection.

use super::LocalPod;
use crate::{broker::OpenSocket, context::Context, inbound, observe::ConnectionInfo};
use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_core::{authz, mesh::Mesh};

/// After this long a handshake that had been let in has ended.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Whose plaintext is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// What came in while this agent had the pod.
    Own,
    /// What an agent before this one let in. A connection whose other end has said its last may be one that that agent carried,
    /// and that ended with it.
    Another,
}

/// Ends what `mesh` forbids at these pods, whose rows follow it already: nothing new comes in that it forbids.
pub(super) fn cut_forbidden(context: &Arc<Context>, mesh: &Mesh, pods: Vec<Arc<LocalPod>>, of: Of) {
    let pods: Vec<_> = pods.into_iter().filter(|pod| may_refuse(pod)).collect();
    if pods.is_empty() {
        return;
    }
    for pod in &pods {
        cut(context, mesh, pod, of);
    }
    // A SYN that was let in just before its row changed may have become a connection after the first look.
    let context = context.clone();
    tokio::spawn(async move {
        tokio::time::sleep(SECOND_LOOK).await;
        let (_writing, mesh) = context.mesh.to_follow(&context.duty).await;
        if context.duty.is_on() {
            for pod in &pods {
                cut(&context, &mesh, pod, of);
            }
        }
    });
}

/// Whether there is plaintext that the pod does not take; mostly there is none, and then nothing needs to be listed.
fn may_refuse(pod: &LocalPod) -> bool {
    let rows = pod.rows.lock().unwrap_or_else(PoisonError::into_inner);
    rows.as_ref().is_none_or(|rows| {
        rows.plaintext_default != plaintext::PASS
            || rows.plaintext.values().any(|row| *row != plaintext::PASS)
    })
}

/// Ends what `mesh` forbids at one pod; answers how much that was.
pub(super) fn cut(context: &Context, mesh: &Mesh, pod: &LocalPod, of: Of) -> usize {
    let Some(destination) = mesh.workload(&pod.uid) else {
        return 0;
    };
    let mut ended = 0;
    let open = match context.broker.unvouched(pod.id) {
        Ok(open) => open,
        Err(error) => {
            tracing::error!(pod = %pod.uid, %error, "cannot tell whether plaintext goes on that must not");
            return 0;
        }
    };
    let is_judged = |socket: &OpenSocket| is_to_be_judged(pod, socket) && (of == Of::Own || !socket.ended);
    for socket in open.into_iter().filter(is_judged) {
        let (client, address) = (canonical(socket.remote), canonical(socket.local));
        if destination.capture.inbound_ports.contains(&address.port()) {
            continue;
        }
        let decision = authz::decide(
            mesh,
            &authz::Connection {
                source: None,
                source_address: client.ip(),
                destination,
                destination_address: address,
            },
        );
        if decision.is_allow() {
            continue;
        }
        match context.broker.close(pod.id, &[socket]) {
            Ok(0) => {}
            Ok(_) => {
                ended += 1;
                let info = ConnectionInfo::plaintext(Some(destination.clone()), client, address);
                context.observer.open(info).finish(inbound::denial(&decision));
            }
            Err(error) => {
                tracing::error!(pod = %pod.uid, %client, %address, %error, "cannot end plaintext that must not go on");
            }
        }
    }
    ended
}

/// Neither one that the agent carries, which is judged where it is carried, nor one that is older than the enrolment and has
/// its grace.
fn is_to_be_judged(pod: &LocalPod, socket: &OpenSocket) -> bool {
    let carried = pod
        .plaintext_ports
        .is_held(canonical(socket.remote), canonical(socket.local));
    !carried && !pod.has_grace(socket)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
