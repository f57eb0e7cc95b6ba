//! Connections that were open when a pod was enrolled: the programs never see them, so they go on without the mesh.
//! Those that would be refused today are ended after a grace.

use super::{LocalPod, passed_plaintext};
use crate::context::Context;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// Time for clients to come back through the mesh by themselves.
const GRACE: Duration = Duration::from_secs(30);

/// Waits for the grace, then ends the inbound ones that are refused as plaintext. (Where the other end of an outgoing one
/// requires mutual TLS, the agent there ends it.)
pub(super) async fn close_refused(context: Arc<Context>, pod: Arc<LocalPod>) {
    tokio::time::sleep(GRACE).await;
    pod.end_grace();
    let (_writing, mesh) = context.mesh.to_follow(&context.duty).await;
    // A successor has judged them when it enrolled the pod.
    if !context.duty.is_on() {
        return;
    }
    let closed = passed_plaintext::cut(&context, &mesh, &pod, passed_plaintext::Of::Own);
    if closed > 0 {
        pod.already_open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                Some(open.saturating_sub(closed))
            })
            .ok();
        tracing::info!(pod = %pod.uid, closed, "ended connections older than the pod's enrolment that are refused today");
    }
}
