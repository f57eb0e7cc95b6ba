//! What tunnels count, for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges of all tunnels of an agent, written with relaxed ordering.
#[derive(Debug, Default)]
pub struct TunnelStats {
    /// TLS and HTTP/2 handshakes that succeeded, both sides.
    pub handshakes_ok: AtomicU64,
    /// Handshakes that failed or ran out of time, both sides.
    pub handshakes_failed: AtomicU64,
    /// Outbound connections now open.
    pub connections_open_client: AtomicU64,
    /// Inbound connections now open.
    pub connections_open_server: AtomicU64,
    /// Streams now open, both sides.
    pub streams_open: AtomicU64,
    /// Outbound TCP connections attempted.
    pub dials: AtomicU64,
}

impl TunnelStats {
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One open thing in a gauge, until dropped.
#[derive(Debug)]
pub(super) struct Open {
    stats: Arc<TunnelStats>,
    gauge: fn(&TunnelStats) -> &AtomicU64,
}

impl Open {
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
