//! Ports on which a pod listened before it was enrolled: nothing tells when they close, so it is looked at.

use super::LocalPod;
use crate::context::Context;
use std::{sync::Arc, time::Duration};

/// For so long a port that closed still looks open. A look takes some 100 µs: a dump of the namespace's listening sockets.
const LOOK: Duration = Duration::from_secs(2);

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
