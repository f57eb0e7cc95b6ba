//! Endpoints that could not be reached just now.

use std::net::SocketAddr;
use std::time::Duration;

use super::expiring::Expiring;
use crate::workload::WorkloadUid;

/// How long one failure is remembered: long enough that a burst of connections does not run into the same wall, short
/// enough that a pod that restarts is used again before anyone wonders.
pub const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// How long an endpoint that failed has to be reached before it is trusted again.
pub const DOUBTED_FOR: Duration = Duration::from_mins(10);
/// Endpoints remembered at once; beyond, the oldest failures are forgotten.
const CAPACITY: usize = 4_096;

/// Endpoints that others are preferred to, each for the pod that failed to reach it: what one pod cannot reach, for its
/// routes or its NetworkPolicies, says nothing about the endpoint to another. Times are counted from any fixed moment.
///
/// After that they are *doubted*: to be tried by who can take another one if that fails again.
#[derive(Debug)]
pub struct Avoided {
    avoided: Expiring<(WorkloadUid, SocketAddr), ()>,
    doubted: Expiring<(WorkloadUid, SocketAddr), ()>,
}

impl Default for Avoided {
    fn default() -> Self {
        Self {
            avoided: Expiring::new(CAPACITY),
            doubted: Expiring::new(CAPACITY),
        }
    }
}

impl Avoided {
    /// Whether the pod failed to reach it within [`AVOIDED_FOR`].
    pub fn contains(&self, source: &WorkloadUid, endpoint: SocketAddr, now: Duration) -> bool {
        self.avoided.get(&(source.clone(), endpoint), now).is_some()
    }

    /// Whether the pod failed to reach it within [`DOUBTED_FOR`], and has not reached it since.
    pub fn is_doubted(&self, source: &WorkloadUid, endpoint: SocketAddr, now: Duration) -> bool {
        self.doubted.get(&(source.clone(), endpoint), now).is_some()
    }

    /// Whether nobody avoids anything.
    pub fn is_empty(&self, now: Duration) -> bool {
        self.avoided.is_empty(now)
    }

    /// Whether nobody doubts anything; then nobody avoids anything either.
    pub fn doubts_nothing(&self, now: Duration) -> bool {
        self.doubted.is_empty(now)
    }

    /// A connection of the pod to it failed.
    pub fn failed(&mut self, source: &WorkloadUid, endpoint: SocketAddr, now: Duration) {
        let key = (source.clone(), endpoint);
        self.avoided.insert(key.clone(), (), now + AVOIDED_FOR, now);
        self.doubted.insert(key, (), now + DOUBTED_FOR, now);
    }

    /// A connection of the pod to it succeeded; answers whether that was in doubt.
    pub fn reached(&mut self, source: &WorkloadUid, endpoint: SocketAddr) -> bool {
        let key = (source.clone(), endpoint);
        self.avoided.remove(&key);
        self.doubted.remove(&key)
    }

    /// How many are avoided.
    pub fn len(&self, now: Duration) -> usize {
        self.avoided.len(now)
    }
}

#[cfg(test)]
mod tests {
    use super::{AVOIDED_FOR, Avoided, DOUBTED_FOR};
    use crate::workload::WorkloadUid;
    use std::time::Duration;

    #[test]
    fn a_failure_counts_for_a_short_time_or_until_a_success_and_only_for_the_pod_that_saw_it() {
        let mut avoided = Avoided::default();
        let (pod, neighbour) = (WorkloadUid::new("pod"), WorkloadUid::new("neighbour"));
        let (one, other) = ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let now = Duration::from_secs(100);
        avoided.failed(&pod, one, now);
        avoided.failed(&pod, other, now);
        assert!(avoided.contains(&pod, one, now + AVOIDED_FOR - Duration::from_millis(1)));
        assert!(!avoided.contains(&neighbour, one, now));
        assert!(!avoided.contains(&pod, one, now + AVOIDED_FOR));
        avoided.reached(&pod, other);
        assert!(!avoided.contains(&pod, other, now));
        assert_eq!((avoided.len(now), avoided.is_empty(now)), (1, false));
        assert!(avoided.is_empty(now + AVOIDED_FOR));
    }

    #[test]
    fn an_endpoint_that_failed_is_doubted_until_it_is_reached() {
        let mut avoided = Avoided::default();
        let (pod, neighbour) = (WorkloadUid::new("pod"), WorkloadUid::new("neighbour"));
        let endpoint = "10.0.0.1:80".parse().unwrap();
        let now = Duration::from_secs(100);
        assert!(!avoided.reached(&pod, endpoint));
        avoided.failed(&pod, endpoint, now);
        let later = now + 2 * AVOIDED_FOR;
        assert!(avoided.is_empty(later) && !avoided.doubts_nothing(later));
        assert!(
            avoided.is_doubted(&pod, endpoint, later) && !avoided.is_doubted(&neighbour, endpoint, later)
        );
        assert!(!avoided.is_doubted(&pod, endpoint, now + DOUBTED_FOR));
        assert!(avoided.reached(&pod, endpoint));
        assert!(!avoided.is_doubted(&pod, endpoint, now) && avoided.doubts_nothing(now));
    }
}
