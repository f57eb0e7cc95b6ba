//! A bound on peers that are not authenticated yet.
//!
//! Anybody who reaches a pod's address can open connections to 15008 and stay silent until the handshake's deadline.
//! Those must not take the places of connections that carry something, and one source must not take the handshakes of
//! the others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Handshakes in flight on the node, at most: with the memory of a TLS handshake about 50 MiB.
const LIMIT: usize = 1024;
/// A source may have one for so many that are free (dynamic thresholds, Choudhury and Hahne 1998): one source alone
/// gets a fifth, and however many there are, another one still gets some.
const FREE_PER_OWN: usize = 4;

/// The handshakes in flight.
#[derive(Debug)]
pub struct Handshakes {
    limit: usize,
    in_flight: Mutex<InFlight>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct InFlight {
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One handshake, until dropped.
#[derive(Debug)]
pub struct Handshake {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

impl Handshakes {
    /// At most `limit` at once.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            in_flight: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// Lets a connection begin its handshake; `None`, and counted, if its source has its share in flight already.
    pub fn begin(self: &Arc<Self>, source: IpAddr) -> Option<Handshake> {
        let mut in_flight = self.in_flight();
        let own = in_flight.by_source.get(&source).copied().unwrap_or_default();
        let free = self.limit.saturating_sub(in_flight.total);
        if free == 0 || own * FREE_PER_OWN >= free {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        in_flight.total += 1;
        in_flight.by_source.insert(source, own + 1);
        Some(Handshake {
            handshakes: Arc::clone(self),
            source,
        })
    }

    /// Handshakes in flight.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight().total
    }

    /// Connections turned away so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn in_flight(&self) -> MutexGuard<'_, InFlight> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut in_flight = self.handshakes.in_flight();
        in_flight.total = in_flight.total.saturating_sub(1);
        if let Some(own) = in_flight.by_source.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                in_flight.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    /// Begins handshakes until the source is refused.
    fn flood(handshakes: &Arc<Handshakes>, source: IpAddr) -> Vec<Handshake> {
        std::iter::from_fn(|| handshakes.begin(source)).collect()
    }

    #[test]
    fn one_source_gets_a_fifth_and_leaves_the_others_theirs() {
        let handshakes = Arc::new(Handshakes::default());
        let flood = flood(&handshakes, address(1));
        assert_eq!(flood.len(), LIMIT.div_ceil(5));
        assert!(handshakes.begin(address(2)).is_some());
        assert_eq!(handshakes.refused(), 1);
    }

    #[test]
    fn ten_flooding_sources_leave_some_to_the_eleventh() {
        let handshakes = Arc::new(Handshakes::default());
        let _held: Vec<_> = (1..=10).map(|n| flood(&handshakes, address(n))).collect();
        assert!(handshakes.in_flight_count() < LIMIT);
        assert!(flood(&handshakes, address(11)).len() > 8);
    }

    #[test]
    fn what_ends_is_given_back_and_forgotten() {
        let handshakes = Arc::new(Handshakes::new(20));
        drop(flood(&handshakes, address(1)));
        assert_eq!(handshakes.in_flight_count(), 0);
        assert!(handshakes.in_flight().by_source.is_empty());
        assert_eq!(flood(&handshakes, address(1)).len(), 4);
    }
}
