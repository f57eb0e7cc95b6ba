//! How many retries a Service may cost, so that one whose endpoints are all dead does not get three times the load.

use std::sync::Arc;
use std::time::Duration;

use super::expiring::Expiring;
use crate::service::Service;

/// Thousandths of a retry that each connection earns: one in five.
const PER_CONNECTION: u64 = 200;
/// Retries that time alone earns.
const PER_SECOND: u64 = 10;
/// Retries that can be saved up.
const SAVED: u64 = 100;
/// One retry.
const RETRY: u64 = 1_000;
const FULL: u64 = SAVED * RETRY;
/// Services with a budget that is not full, at once.
const CAPACITY: usize = 4_096;

/// The budgets of all Services. Times are counted from any fixed moment.
///
/// A budget that nobody has taken from for ten seconds is full again, which is the same as having none here.
#[derive(Debug)]
pub struct RetryBudgets(Expiring<Arc<str>, Budget>);

#[derive(Debug, Clone, Copy)]
struct Budget {
    /// Thousandths of a retry that were left at the time `at`.
    left: u64,
    at: Duration,
}

impl Budget {
    fn at(self, now: Duration) -> u64 {
        let since = now.saturating_sub(self.at).as_millis();
        // PER_SECOND retries a second are PER_SECOND thousandths a millisecond.
        let earned = u64::try_from(since)
            .unwrap_or(u64::MAX)
            .saturating_mul(PER_SECOND);
        self.left.saturating_add(earned).min(FULL)
    }
}

impl Default for RetryBudgets {
    fn default() -> Self {
        Self(Expiring::new(CAPACITY))
    }
}

impl RetryBudgets {
    /// A connection to the Service begins.
    pub fn connection(&mut self, service: &Service, now: Duration) {
        if let Some(budget) = self.0.get(&service.hostname, now) {
            let left = budget.at(now) + PER_CONNECTION;
            self.put(service, left.min(FULL), now);
        }
    }

    /// Takes one retry; whether there was one.
    pub fn take(&mut self, service: &Service, now: Duration) -> bool {
        let left = self
            .0
            .get(&service.hostname, now)
            .map_or(FULL, |budget| budget.at(now));
        let Some(left) = left.checked_sub(RETRY) else {
            return false;
        };
        self.put(service, left, now);
        true
    }

    /// Whether all budgets are full.
    pub fn is_empty(&self, now: Duration) -> bool {
        self.0.is_empty(now)
    }

    /// How many Services have less than a full budget.
    pub fn len(&self, now: Duration) -> usize {
        self.0.len(now)
    }

    fn put(&mut self, service: &Service, left: u64, now: Duration) {
        let full = now + Duration::from_millis((FULL - left).div_ceil(PER_SECOND));
        self.0
            .insert(service.hostname.clone(), Budget { left, at: now }, full, now);
    }
}
