//! What dry-run policies would have decided, counted by policy: names come and go, so their number is bounded.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tramline_core::authz::{Decision, PolicyName};

use super::super::record::Verdict;
use super::Sample;

/// Label sets kept. A node's dry-run policies times four would be very many already.
pub(super) const MAX_DRY_RUNS: usize = 1_000;

/// The label value where a default would have decided.
const NO_POLICY: &str = "-";
/// The label value of every policy that finds no room.
const OTHER: &str = "other";

/// What was decided, what would have been, and by whom.
type Key = (Verdict, Verdict, Option<PolicyName>);

/// See the module.
#[derive(Debug)]
pub(super) struct DryRuns {
    counts: Mutex<Counts>,
    idle: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    by_policy: HashMap<Key, Count>,
    other: HashMap<(Verdict, Verdict), u64>,
}

#[derive(Debug)]
struct Count {
    connections: u64,
    last: Instant,
}

impl DryRuns {
    /// Nothing counted yet; a label set that was idle for `idle` is removed.
    pub(super) fn new(idle: Duration) -> Self {
        Self {
            counts: Mutex::default(),
            idle,
        }
    }

    /// Counts one connection.
    pub(super) fn count(&self, verdict: Verdict, dry_run: &Decision) {
        let now = Instant::now();
        let would_be = Verdict::of_decision(dry_run);
        let key = (verdict, would_be, dry_run.policy().cloned());
        let mut counts = self.lock();
        if let Some(count) = counts.by_policy.get_mut(&key) {
            count.connections += 1;
            count.last = now;
            return;
        }
        if counts.by_policy.len() >= MAX_DRY_RUNS {
            self.expire(&mut counts, now);
        }
        if counts.by_policy.len() >= MAX_DRY_RUNS {
            *counts.other.entry((verdict, would_be)).or_default() += 1;
            return;
        }
        let connections = 1;
        counts.by_policy.insert(
            key,
            Count {
                connections,
                last: now,
            },
        );
    }

    /// One sample per label set.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut counts = self.lock();
        self.expire(&mut counts, Instant::now());
        let known = counts.by_policy.iter().map(|((verdict, would_be, by), count)| {
            let by = by.as_ref().map_or(NO_POLICY.to_owned(), ToString::to_string);
            Sample::count([verdict.as_str(), would_be.as_str(), &by], count.connections)
        });
        let other = counts.other.iter().map(|((verdict, would_be), connections)| {
            Sample::count([verdict.as_str(), would_be.as_str(), OTHER], *connections)
        });
        known.chain(other).collect()
    }

    fn expire(&self, counts: &mut Counts, now: Instant) {
        counts
            .by_policy
            .retain(|_, count| now.saturating_duration_since(count.last) < self.idle);
    }

    /// A panic elsewhere leaves these plain numbers usable, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
