//! What tunnels count, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use tramline_core::reason::Reason;

use super::BufferBudget;

/// Counters and gauges of all tunnels of an agent, written with relaxed ordering.
#[derive(Debug, Default)]
pub struct TunnelStats {
    /// TLS and HTTP/2 handshakes as client.
    pub client_handshakes: Attempts,
    /// TLS and HTTP/2 handshakes as server.
    pub server_handshakes: Attempts,
    /// TCP connections to other agents.
    pub connects: Attempts,
    /// Outbound connections now open.
    pub connections_open_client: AtomicU64,
    /// Inbound connections now open.
    pub connections_open_server: AtomicU64,
    /// Streams now open, both sides.
    pub streams_open: AtomicU64,
    /// Outbound TCP connections attempted.
    pub dials: AtomicU64,
    /// Outbound connections closed because no stream used them for long enough.
    pub released: AtomicU64,
    /// Outbound connections cut because their source or destination workload left.
    pub evicted: AtomicU64,
    /// Times an outbound connection's peer fell silent and new streams went elsewhere.
    pub connections_suspected: AtomicU64,
    /// Connections that ended because a PING was not answered, both sides.
    pub connections_lost: AtomicU64,
    /// What streams hold for applications that do not read.
    pub buffers: BufferBudget,
}

impl TunnelStats {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Attempts at one thing: how often each end, and how long those that succeeded took.
#[derive(Debug)]
pub struct Attempts {
    /// Only ends that occurred; bounded by the number of reasons.
    ended: Mutex<BTreeMap<Reason, u64>>,
    took: Histogram,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            ended: Mutex::default(),
            took: crate::latency::histogram(),
        }
    }
}

impl Attempts {
    /// Counts an attempt, [`Reason::Ok`] or why not.
    pub(super) fn ended(&self, reason: Reason, took: Duration) {
        if reason == Reason::Ok {
            self.took.observe(took.as_secs_f64());
        }
        *self.lock().entry(reason).or_default() += 1;
    }

    /// How often each end occurred, [`Reason::Ok`] even if never.
    pub fn ends(&self) -> BTreeMap<Reason, u64> {
        let mut ends = self.lock().clone();
        ends.entry(Reason::Ok).or_default();
        ends
    }

    /// Attempts that failed, whatever for.
    pub fn failed(&self) -> u64 {
        let ends = self.lock();
        ends.iter()
            .filter(|(reason, _)| **reason != Reason::Ok)
            .map(|(_, count)| count)
            .sum()
    }

    /// Seconds that successful attempts took.
    pub fn took(&self) -> &Histogram {
        &self.took
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Reason, u64>> {
        // Plain numbers: a panic elsewhere leaves them usable.
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open thing in a gauge, until dropped.
#[derive(Debug)]
pub(super) struct Open {
    stats: Arc<TunnelStats>,
    gauge: fn(&TunnelStats) -> &AtomicU64,
}

impl Open {
    pub(super) fn stats(&self) -> &Arc<TunnelStats> {
        &self.stats
    }

    pub(super) fn new(stats: &Arc<TunnelStats>, gauge: fn(&TunnelStats) -> &AtomicU64) -> Self {
        gauge(stats).fetch_add(1, Ordering::Relaxed);
        Self {
            stats: Arc::clone(stats),
            gauge,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.gauge)(&self.stats).fetch_sub(1, Ordering::Relaxed);
    }
}
