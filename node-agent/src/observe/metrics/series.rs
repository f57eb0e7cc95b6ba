//! The TCP counters of one label set, and the bounded table of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::labels::TcpLabels;
use crate::observe::record::Reporter;

/// Label sets kept: with five metrics each, 20,000 series.
pub const MAX_LABEL_SETS: usize = 4_000;

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
        })
    }

    /// Whether a connection of this label set was ever established; else only `failed` says something.
    pub(super) fn was_established(&self) -> bool {
        self.opened.load(Ordering::Relaxed) + self.closed.load(Ordering::Relaxed) > 0
    }
}

/// Label sets up to a bound; whatever comes later is counted under `other`, one set per reporter.
#[derive(Debug)]
pub(super) struct Table {
    known: Mutex<HashMap<TcpLabels, Arc<Series>>>,
    other: [Arc<Series>; 2],
    overflowed: AtomicU64,
    capacity: usize,
}

impl Table {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            known: Mutex::default(),
            other: Reporter::ALL.map(|reporter| Series::new(TcpLabels::other(reporter))),
            overflowed: AtomicU64::new(0),
            capacity,
        }
    }

    pub(super) fn series(&self, reporter: Reporter, labels: TcpLabels) -> Arc<Series> {
        let mut known = self.lock();
        if let Some(series) = known.get(&labels) {
            return Arc::clone(series);
        }
        if known.len() >= self.capacity {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return Arc::clone(&self.other[reporter.index()]);
        }
        let series = Series::new(labels.clone());
        known.insert(labels, Arc::clone(&series));
        series
    }

    /// Every series with something to say.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let known: Vec<_> = self.lock().values().cloned().collect();
        let other = self
            .other
            .iter()
            .filter(|s| s.was_established() || s.failed.load(Ordering::Relaxed) > 0);
        known.into_iter().chain(other.cloned()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TcpLabels, Arc<Series>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
