//! Which of two agents on a node has the kernel: the one that runs, or its successor in an upgrade.
//!
//! An agent on duty writes maps, enrols pods and reads events. One that is relieved only carries on with the connections
//! it has, decides about them by the present configuration, and is there to take over again should its successor die.

use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard, watch};

/// Whether this agent has the kernel.
pub(crate) struct Duty {
    on: watch::Sender<bool>,
    writing: Mutex<()>,
}

impl Default for Duty {
    fn default() -> Self {
        Self {
            on: watch::Sender::new(true),
            writing: Mutex::default(),
        }
    }
}

impl Duty {
    /// Whether this agent has the kernel.
    pub(crate) fn is_on(&self) -> bool {
        *self.on.borrow()
    }

    /// To be held while the kernel is written to: a successor waits for its end.
    pub(crate) async fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// Goes off duty; `step_aside` runs when nobody writes and nobody will.
    pub(crate) async fn leave(&self, step_aside: impl FnOnce()) {
        let _writing = self.writing().await;
        self.on.send_replace(false);
        step_aside();
    }

    /// Is on duty again.
    pub(crate) fn resume(&self) {
        self.on.send_replace(true);
    }

    /// Resolves when off duty.
    pub(crate) async fn left(&self) {
        let _ = self.on.subscribe().wait_for(|on| !on).await;
    }

    /// Resolves when off duty for so long.
    pub(crate) async fn left_for(&self, time: Duration) {
        loop {
            self.left().await;
            tokio::select! {
                () = tokio::time::sleep(time) => return,
                () = self.resumed() => {}
            }
        }
    }

    /// Resolves when on duty.
    pub(crate) async fn resumed(&self) {
        let _ = self.on.subscribe().wait_for(|on| *on).await;
    }
}
