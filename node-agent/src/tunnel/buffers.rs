//! A bound on what all tunnels of the agent hold for applications that do not read.
//!
//! Each stream is bounded by its window, but windows are promises, and a node has thousands of them. While the sum of
//! what is held stays within the budget nothing happens; past it the stream that has been stuck the longest is cut, so
//! that a few applications that stopped reading cannot take the memory of everybody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use futures_util::task::AtomicWaker;

use super::TunnelStats;
use super::settings::BUFFER_BUDGET;

/// A stream that holds less is not worth cutting: it is most likely one that reads, between two writes.
const BACKLOG: u64 = 128 << 10;

/// What streams hold, and who has been stuck for how long.
#[derive(Debug)]
pub struct BufferBudget {
    limit: u64,
    held: AtomicU64,
    cut: AtomicU64,
    order: AtomicU64,
    stuck: Mutex<BTreeMap<u64, Arc<Stuck>>>,
}

#[derive(Debug, Default)]
struct Stuck {
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Default for BufferBudget {
    fn default() -> Self {
        Self::new(BUFFER_BUDGET)
    }
}

impl BufferBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            held: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            order: AtomicU64::new(0),
            stuck: Mutex::default(),
        }
    }

    /// Bytes that are held now.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// The bound on them.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Streams cut so far because the bound was reached.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    fn stuck(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Stuck>>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts the stream that has been stuck the longest.
    fn relieve(&self) {
        if let Some((_, longest)) = self.stuck().pop_first() {
            self.cut.fetch_add(1, Ordering::Relaxed);
            longest.cut.store(true, Ordering::Release);
            longest.waker.wake();
        }
    }
}

/// One stream's share of the budget.
pub(super) struct Held {
    stats: Arc<TunnelStats>,
    bytes: u64,
    stuck: Option<(u64, Arc<Stuck>)>,
}

impl Held {
    pub(super) fn new(stats: Arc<TunnelStats>) -> Self {
        Self {
            stats,
            bytes: 0,
            stuck: None,
        }
    }

    /// The stream holds `bytes` that its application does not take at present. True if it has to be cut.
    pub(super) fn hold(&mut self, cx: &mut Context<'_>, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let more = bytes > self.bytes;
        let total = self.count(bytes);
        if bytes < BACKLOG {
            self.leave();
            return false;
        }
        let budget = &self.stats.buffers;
        let (_, stuck) = self.stuck.get_or_insert_with(|| {
            let place = (budget.order.fetch_add(1, Ordering::Relaxed), Arc::default());
            budget.stuck().insert(place.0, Arc::clone(&place.1));
            place
        });
        stuck.waker.register(cx.waker());
        if more && total > budget.limit {
            budget.relieve();
        }
        stuck.cut.load(Ordering::Acquire)
    }

    /// The application has taken everything.
    pub(super) fn release(&mut self) {
        if self.bytes > 0 {
            self.count(0);
        }
        self.leave();
    }

    /// Sets the share; answers the sum of all.
    fn count(&mut self, bytes: u64) -> u64 {
        let held = &self.stats.buffers.held;
        let before = std::mem::replace(&mut self.bytes, bytes);
        // Wrapping: the sum of what was added never falls below what is taken away.
        let difference = bytes.wrapping_sub(before);
        held.fetch_add(difference, Ordering::Relaxed)
            .wrapping_add(difference)
    }

    fn leave(&mut self) {
        if let Some((place, _)) = self.stuck.take() {
            self.stats.buffers.stuck().remove(&place);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}
