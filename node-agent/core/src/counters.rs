//! Byte counters that a relay adds to while telemetry reads them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Application bytes of one connection, each direction counted from its start.
///
/// Relaxed atomics: each direction has one writer, a reader may be a few microseconds behind.
#[derive(Debug, Default)]
pub struct ByteCounters {
    to_destination: AtomicU64,
    to_source: AtomicU64,
}

impl ByteCounters {
    /// Adds `bytes` that left for the destination (the request direction).
    pub fn add_to_destination(&self, bytes: u64) {
        self.to_destination.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds `bytes` that left for the source (the response direction).
    pub fn add_to_source(&self, bytes: u64) {
        self.to_source.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes towards the destination so far.
    pub fn to_destination(&self) -> u64 {
        self.to_destination.load(Ordering::Relaxed)
    }

    /// Bytes towards the source so far.
    pub fn to_source(&self) -> u64 {
        self.to_source.load(Ordering::Relaxed)
    }
}
