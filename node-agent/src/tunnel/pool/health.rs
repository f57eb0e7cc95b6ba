//! Whether the peer of one connection still answers.
//!
//! A peer that falls silent (its node gone, its agent stuck) leaves a connection that takes requests and answers none.
//! The PING that proves the loss may take long, for the sake of the streams that are open; a new stream need not wait
//! for the proof, it only has to go elsewhere.

use tokio::sync::{Notify, watch};

/// Shared by the connection's driver and the streams that have a place on it.
#[derive(Debug)]
pub(in crate::tunnel) struct Health {
    doubts: Notify,
    suspect: watch::Sender<bool>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self {
            doubts: Notify::new(),
            suspect: watch::Sender::new(false),
        }
    }

    /// Asks the driver for a PING now.
    pub(super) fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Resolves when somebody doubts.
    pub(in crate::tunnel) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// A PING is overdue, or was answered after all.
    pub(in crate::tunnel) fn set_suspect(&self, suspect: bool) -> bool {
        self.suspect
            .send_if_modified(|value| std::mem::replace(value, suspect) != suspect)
    }

    /// Whether a PING is overdue: no new streams meanwhile.
    pub(super) fn is_suspect(&self) -> bool {
        *self.suspect.borrow()
    }

    /// Resolves when a PING is overdue.
    pub(super) async fn suspected(&self) {
        // The sender is `self`.
        let _ = self.suspect.subscribe().wait_for(|suspect| *suspect).await;
    }
}
