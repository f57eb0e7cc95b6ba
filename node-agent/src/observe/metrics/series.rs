//! The TCP counters of one label set, and the bounded table of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::labels::TcpLabels;
use crate::observe::record::Reporter;

/// Label sets kept: with five metrics each, 20,000 series.
pub const MAX_LABEL_SETS: usize = 4_000;

/// A label set that no live connection has and none had for this long is removed: far longer than between two scrapes,
/// so that its last values were seen. Prometheus takes its return for a restart of the counter.
pub const IDLE_LABEL_SET: Duration = Duration::from_secs(15 * 60);

/// The five counters that share one label set.
#[derive(Debug)]
pub struct Series {
    pub(super) labels: TcpLabels,
    pub(super) opened: AtomicU64,
    pub(super) closed: AtomicU64,
    /// Towards the source.
    pub(super) sent: AtomicU64,
    /// Towards the destination.
    pub(super) received: AtomicU64,
    pub(super) failed: AtomicU64,
    /// Milliseconds from the table's start to the last connection that asked for it or ended in it.
    last_used: AtomicU64,
}

impl Series {
    fn new(labels: TcpLabels) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self {
            labels,
            opened: zero(),
            closed: zero(),
            sent: zero(),
            received: zero(),
            failed: zero(),
            last_used: zero(),
        })
    }

    /// Whether a connection of this label set was ever established; else only `failed` says something.
    pub(super) fn was_established(&self) -> bool {
        self.opened.load(Ordering::Relaxed) + self.closed.load(Ordering::Relaxed) > 0
    }
}

/// Label sets up to a bound; whatever finds no room is counted under `other`, one set per reporter.
#[derive(Debug)]
pub(super) struct Table {
    known: Mutex<Known>,
    other: [Arc<Series>; 2],
    overflowed: AtomicU64,
    expired: AtomicU64,
    capacity: usize,
    idle: Duration,
    started: Instant,
}

#[derive(Debug, Default)]
struct Known {
    by_labels: HashMap<TcpLabels, Arc<Series>>,
    /// No label set can be idle for long enough before this, in milliseconds from the table's start.
    next_eviction: u64,
}

impl Table {
    pub(super) fn new(capacity: usize, idle: Duration) -> Self {
        Self {
            known: Mutex::default(),
            other: Reporter::ALL.map(|reporter| Series::new(TcpLabels::other(reporter))),
            overflowed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            capacity,
            idle,
            started: Instant::now(),
        }
    }

    pub(super) fn series(&self, reporter: Reporter, labels: TcpLabels) -> Arc<Series> {
        let now = self.now();
        let mut known = self.lock();
        if let Some(series) = known.by_labels.get(&labels) {
            series.last_used.store(now, Ordering::Relaxed);
            return Arc::clone(series);
        }
        if known.by_labels.len() >= self.capacity {
            self.expire(&mut known, now);
        }
        if known.by_labels.len() >= self.capacity {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(&self.other[reporter.index()]);
        }
        let series = Series::new(labels.clone());
        series.last_used.store(now, Ordering::Relaxed);
        known.by_labels.insert(labels, Arc::clone(&series));
        series
    }

    /// A connection that had this series has ended: from now on it may be idle.
    pub(super) fn touch(&self, series: &Series) {
        series.last_used.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn is_other(&self, series: &Arc<Series>) -> bool {
        self.other.iter().any(|other| Arc::ptr_eq(other, series))
    }

    /// Every series with something to say, after those that expired are gone.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let known: Vec<_> = {
            let mut known = self.lock();
            self.expire(&mut known, self.now());
            known.by_labels.values().cloned().collect()
        };
        let used =
            |series: &&Arc<Series>| series.was_established() || series.failed.load(Ordering::Relaxed) > 0;
        known
            .into_iter()
            .chain(self.other.iter().filter(used).cloned())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().by_labels.len()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Label sets removed since start.
    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    fn expire(&self, known: &mut Known, now: u64) {
        let removed = known.evict(now, milliseconds(self.idle));
        self.expired.fetch_add(removed, Ordering::Relaxed);
    }

    /// Milliseconds since the table's start.
    fn now(&self) -> u64 {
        milliseconds(self.started.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Drops label sets that are idle, and says how many. Looks through the table only when one of them can be.
    fn evict(&mut self, now: u64, idle: u64) -> u64 {
        if now < self.next_eviction {
            return 0;
        }
        let before = self.by_labels.len();
        let mut oldest = now;
        self.by_labels.retain(|_, series| {
            let last = series.last_used.load(Ordering::Relaxed);
            // A live connection holds its series, and is no reason to look again soon.
            let live = Arc::strong_count(series) > 1;
            let keep = live || now.saturating_sub(last) < idle;
            if keep && !live {
                oldest = oldest.min(last);
            }
            keep
        });
        self.next_eviction = oldest.saturating_add(idle);
        (before - self.by_labels.len()) as u64
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
