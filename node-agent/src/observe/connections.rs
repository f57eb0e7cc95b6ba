//! The table of live connections: what `tramline connections` lists and what a scrape sums up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tramline_core::counters::ByteCounters;

use super::metrics::Series;
use super::record::ConnectionInfo;

/// Locks, so that connections opened on different workers seldom meet.
const SHARDS: usize = 16;

/// Live connections, bounded: one beyond the bound works and is logged, but is not listed, and its bytes reach the
/// metrics only when it closes.
#[derive(Debug)]
pub struct Connections {
    shards: [Mutex<HashMap<u64, Arc<Live>>>; SHARDS],
    next: AtomicU64,
    unlisted: AtomicU64,
    per_shard: usize,
}

/// One live connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) id: u64,
    pub(super) opened: Instant,
    pub(super) counters: Arc<ByteCounters>,
    state: Mutex<LiveState>,
}

/// What changes while a connection lives.
#[derive(Debug)]
pub(super) struct LiveState {
    pub(super) info: ConnectionInfo,
    /// From accept to both halves being open.
    pub(super) connect: Option<Duration>,
    /// Where its bytes are counted, from the moment it was established.
    pub(super) series: Option<Arc<Series>>,
    /// Bytes already counted: to the destination, to the source.
    pub(super) reported: (u64, u64),
}

impl Live {
    /// A panic elsewhere leaves these plain values usable, so a poisoned lock is taken as it is.
    pub(super) fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// A table of at most `capacity` entries, rounded up to a multiple of 16.
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            next: AtomicU64::new(1),
            unlisted: AtomicU64::new(0),
            per_shard: capacity.div_ceil(SHARDS),
        }
    }

    pub(super) fn insert(
        &self,
        info: ConnectionInfo,
        counters: Arc<ByteCounters>,
        opened: Instant,
    ) -> Arc<Live> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Mutex::new(LiveState {
            info,
            connect: None,
            series: None,
            reported: (0, 0),
        });
        let live = Arc::new(Live {
            id,
            opened,
            counters,
            state,
        });
        let mut shard = self.shard(id);
        if shard.len() < self.per_shard {
            shard.insert(id, Arc::clone(&live));
        } else {
            self.unlisted.fetch_add(1, Ordering::Relaxed);
        }
        live
    }

    pub(super) fn remove(&self, live: &Live) {
        self.shard(live.id).remove(&live.id);
    }

    /// Calls `f` for every connection listed. No table lock is held meanwhile.
    pub(super) fn for_each(&self, mut f: impl FnMut(&Arc<Live>)) {
        for shard in &self.shards {
            let listed: Vec<_> = shard
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .cloned()
                .collect();
            listed.iter().for_each(&mut f);
        }
    }

    /// How many connections are listed.
    pub fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len())
            .sum()
    }

    /// Whether none is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections found the table full since start.
    pub fn unlisted(&self) -> u64 {
        self.unlisted.load(Ordering::Relaxed)
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 16")]
        let index = (id % SHARDS as u64) as usize;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
