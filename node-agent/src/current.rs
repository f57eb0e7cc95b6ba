//! The configuration in force, and the order in which everything follows a new one.
//!
//! | step | from here on |
//! |---|---|
//! | it is stored | the agent decides by it |
//! | live connections are told | those that it forbids end |
//! | the kernel is brought up to it | what the kernel decides by itself is void, or what it says |
//! | it is acknowledged | whoever is told of it can rely on all three |
//!
//! What is decided by an older one after the third step, or let stand, would be decided after the acknowledgement too: the
//! order is the promise.

use crate::duty::Duty;
use arc_swap::{ArcSwap, Guard};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::{MutexGuard, watch};
use tramline_core::mesh::Mesh;

#[cfg(test)]
mod tests;

/// The snapshot in force; replaced whole.
pub(crate) struct Current {
    mesh: ArcSwap<Mesh>,
    /// The generation of each snapshot after it was stored.
    stored: watch::Sender<u64>,
    /// The generation that everything follows.
    acknowledged: AtomicU64,
}

impl Current {
    /// Begins with a snapshot that nobody has acknowledged.
    pub(crate) fn new(mesh: Mesh) -> Self {
        Self {
            mesh: ArcSwap::from_pointee(mesh),
            stored: watch::Sender::new(0),
            acknowledged: AtomicU64::new(0),
        }
    }

    /// What to decide by, for a moment.
    pub(crate) fn load(&self) -> Guard<Arc<Mesh>> {
        self.mesh.load()
    }

    /// What to decide by, for as long as it is kept.
    pub(crate) fn load_full(&self) -> Arc<Mesh> {
        self.mesh.load_full()
    }

    /// Told of each snapshot once [`Self::load`] answers with it or a later one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// The generation that both the agent and the kernel follow: what is refused by it is refused everywhere.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Puts a snapshot in force; by one task, one after the other. `follow` brings up to it whatever decides without the
    /// agent; where it cannot, nothing is acknowledged.
    pub(crate) async fn put(&self, mesh: Arc<Mesh>, follow: impl Future<Output = bool>) -> bool {
        let generation = mesh.generation();
        // Decisions first, then the kernel's rows: whatever the kernel still passes by old rows was allowed until now, and
        // what it hands to the agent is decided by the new snapshot.
        self.mesh.store(mesh);
        self.stored.send_replace(generation);
        let done = follow.await;
        if done {
            self.acknowledged.store(generation, Ordering::Release);
        }
        done
    }

    /// The right to write to the kernel, with the snapshot to bring it up to. Read in this order: whoever waited for
    /// the right with an older one in hand would write that over a later one which is acknowledged already.
    pub(crate) async fn to_follow<'a>(&self, duty: &'a Duty) -> (MutexGuard<'a, ()>, Arc<Mesh>) {
        let writing = duty.writing().await;
        (writing, self.load_full())
    }
}
