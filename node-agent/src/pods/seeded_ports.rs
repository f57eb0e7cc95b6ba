//! Ports on which a pod listened before it was enrolled: nothing tells when they close, so it is looked at.

use super::LocalPod;
use crate::context::Context;
use std::{sync::Arc, time::Duration};

/// For so long a port that closed still looks open. A look takes some 100 µs: a dump of the namespace's listening sockets.
const LOOK: Duration = Duration::from_secs(2);

/// How often room is made in the table that all pods share. A walk through it takes some 2 µs a row.
const MAKE_ROOM: Duration = Duration::from_secs(30);

/// Makes room in the table of listening ports, for the life of the agent. Ports for which there was none are followed here too:
/// their pod may have had nothing to follow before.
pub(crate) async fn make_room(context: Arc<Context>) {
    loop {
        tokio::time::sleep(MAKE_ROOM).await;
        let writing = context.duty.writing().await;
        if context.duty.is_on() {
            context.broker.make_room();
            for pod in context.pods.all() {
                // One that left meanwhile needs nothing.
                let _ = context.broker.follow_seeds(pod.id);
            }
        }
        drop(writing);
    }
}

/// Looks until none of them is left. What the programs are told while this agent is off duty is its successor's to say.
pub(super) async fn follow(context: Arc<Context>, pod: Arc<LocalPod>) {
    loop {
        let writing = context.duty.writing().await;
        if context.duty.is_on() {
            match context.broker.follow_seeds(pod.id) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(pod = %pod.uid, %error, "cannot look where a pod listens");
                }
            }
        }
        drop(writing);
        tokio::time::sleep(LOOK).await;
    }
}
