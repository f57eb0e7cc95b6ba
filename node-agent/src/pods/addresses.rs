//! The addresses of a pod's namespace, as they change.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};

use super::LocalPod;
use crate::{broker::BrokerError, context::Context};

/// From a failure to the next attempt, doubled with each.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest such wait: an attempt holds configurations up, and makes the pod's verdicts void.
const LONGEST: Duration = Duration::from_secs(64);

/// What the kernel has been told, and how that goes.
struct Followed {
    /// `None` while it may be half of it.
    known: Option<BTreeSet<IpAddr>>,
    /// Before the next attempt, if one is due.
    wait: Option<Duration>,
}

/// Has the kernel follow the pod's addresses, which are `known` at first.
pub(super) async fn follow(
    context: Arc<Context>,
    pod: Arc<LocalPod>,
    known: BTreeSet<IpAddr>,
    mut changes: mpsc::Receiver<()>,
) {
    let mut followed = Followed {
        known: Some(known),
        wait: None,
    };
    loop {
        let is_watched = tokio::select! {
            hint = changes.recv() => hint.is_some(),
            () = sleep(followed.wait.unwrap_or_default()), if followed.wait.is_some() => true,
        };
        let done = async {
            if !is_watched {
                // Whatever happened meanwhile was not told.
                changes = context.broker.watch_addresses(pod.id)?;
            }
            followed.look(&context, &pod).await
        };
        followed.wait = match done.await {
            Ok(true) => None,
            Ok(false) => Some(AGAIN),
            Err(error) => {
                let wait = followed.wait.map_or(AGAIN, |wait| (wait * 2).min(LONGEST));
                tracing::warn!(pod = %pod.uid, %error, again_in = ?wait, "cannot follow a pod's change of address");
                if !is_watched {
                    sleep(wait).await;
                }
                Some(wait)
            }
        };
    }
}

impl Followed {
    /// False while it is another agent that the kernel follows.
    async fn look(&mut self, context: &Arc<Context>, pod: &LocalPod) -> Result<bool, BrokerError> {
        let addresses = context.broker.addresses(pod.id).await?;
        let now = addresses.iter().copied().collect();
        // Also told that a router was heard of again, or that an address is nobody else's.
        if self.known.as_ref() == Some(&now) {
            return Ok(true);
        }
        let _writing = context.duty.writing().await;
        if !context.duty.is_on() {
            return Ok(false);
        }
        self.known = None;
        // With what is noted as left, or it would never be left again.
        context.verdicts.renew(context, pod.id);
        context.broker.readdress(pod.id, &addresses).await?;
        self.known = Some(now);
        Ok(true)
    }
}
