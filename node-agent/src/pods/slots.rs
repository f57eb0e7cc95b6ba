//! How many connections are carried at once.

use super::LocalPod;
use crate::context::Context;
use tokio::sync::OwnedSemaphorePermit;

/// A connection's place among those of its pod and of the node, until dropped.
pub(crate) struct Slots {
    _pod: OwnedSemaphorePermit,
    _node: OwnedSemaphorePermit,
}

impl LocalPod {
    /// A place for one more connection of this pod; `None`, and counted, when the pod or the node has none left.
    pub(crate) fn slot(&self, context: &Context) -> Option<Slots> {
        let taken = self
            .slots
            .clone()
            .try_acquire_owned()
            .and_then(|pod| Ok((pod, context.slots.clone().try_acquire_owned()?)));
        match taken {
            Ok((pod, node)) => Some(Slots {
                _pod: pod,
                _node: node,
            }),
            Err(_) => {
                context.shed();
                None
            }
        }
    }
}
