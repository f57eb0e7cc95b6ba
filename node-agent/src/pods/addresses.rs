//! The addresses of a pod's namespace, as they change.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::LocalPod;
use crate::context::Context;

/// After a change that could not be followed, or while another agent is on duty.
const AGAIN: Duration = Duration::from_secs(2);

/// Has the kernel follow the pod's addresses, which are `known` at first, for as long as they are told of.
pub(super) async fn follow(
    context: Arc<Context>,
    pod: Arc<LocalPod>,
    mut known: BTreeSet<IpAddr>,
    mut changes: mpsc::Receiver<Vec<IpAddr>>,
) {
    // What is there and was not followed.
    let mut open = None;
    loop {
        let addresses = tokio::select! {
            changed = changes.recv() => match changed {
                Some(addresses) => addresses,
                None => return,
            },
            () = sleep(AGAIN), if open.is_some() => match open.take() {
                Some(addresses) => addresses,
                None => continue,
            },
        };
        // Also told that a router was heard of again, or that an address is nobody else's.
        let now = addresses.iter().copied().collect();
        open = if known == now {
            None
        } else if has_followed(&context, &pod, &addresses).await {
            known = now;
            None
        } else {
            Some(addresses)
        };
    }
}

async fn has_followed(context: &Arc<Context>, pod: &LocalPod, addresses: &[IpAddr]) -> bool {
    let _writing = context.duty.writing().await;
    if !context.duty.is_on() {
        return false;
    }
    // With what is noted as left, or it would never be left again.
    context.verdicts.renew(context, pod.id);
    match context.broker.readdress(pod.id, addresses).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(pod = %pod.uid, %error, "cannot follow a pod's change of address; it is tried again");
            false
        }
    }
}
