//! What the agent knows of the endpoints of Services beyond the configuration: which are busy, which just failed, which
//! are a client's own, and how many retries a Service may still cost. The rules are the core's; here are the clock and
//! the locks.

mod loads;
mod shared;

pub(crate) use self::loads::Live;
use self::loads::Loads;
use crate::broker::EndpointLoads;
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tramline_core::{
    route::{Balance, affinity::Pins, outlier::Avoided, retry_budget::RetryBudgets},
    service::Service,
    workload::WorkloadUid,
};

/// One for the whole agent. No lock is held across a wait.
pub(crate) struct Balancer {
    start: Instant,
    loads: Arc<Loads>,
    pins: Mutex<Pins>,
    avoided: Mutex<Avoided>,
    budgets: Mutex<RetryBudgets>,
    granted: AtomicU64,
    denied: AtomicU64,
}

impl Balancer {
    /// Counts together with the kernel where `rows` are given.
    pub(crate) fn new(rows: Option<Arc<EndpointLoads>>) -> Self {
        Self {
            start: Instant::now(),
            loads: Arc::new(Loads::new(rows)),
            pins: Mutex::default(),
            avoided: Mutex::default(),
            budgets: Mutex::default(),
            granted: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        }
    }

    /// The time by which the core's tables count.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Counts a connection towards an endpoint until the answer is dropped.
    pub(crate) fn count(&self, endpoint: SocketAddr) -> Live {
        Loads::count(&self.loads, endpoint)
    }

    /// The row in which the kernel counts connections to an endpoint; `None` where there is no room. `in_use` names the rows
    /// that must stay.
    pub(crate) fn row(&self, endpoint: SocketAddr, in_use: impl FnOnce() -> HashSet<u32>) -> Option<u32> {
        self.loads.row(endpoint, in_use)
    }

    /// Leaves counting together with the kernel to another agent.
    pub(crate) fn detach(&self) {
        self.loads.detach();
    }

    /// Counts together with the kernel again.
    pub(crate) fn attach(&self) {
        self.loads.attach();
    }

    /// Whether `source` failed to reach the endpoint, and has not done so since.
    pub(crate) fn doubts(&self, source: &WorkloadUid, endpoint: SocketAddr) -> bool {
        lock(&self.avoided).is_doubted(source, endpoint, self.now())
    }

    /// What the core asks when `source` opens a connection.
    pub(crate) fn seen_by<'a>(&'a self, source: &'a WorkloadUid) -> impl Balance + 'a {
        let now = self.now();
        SeenBy {
            balancer: self,
            source,
            now,
            any_avoided: !lock(&self.avoided).is_empty(now),
        }
    }

    /// A client's connection to the port of a Service goes to this endpoint.
    pub(crate) fn chosen(&self, client: IpAddr, service: &Service, port: u16, endpoint: SocketAddr) {
        if service.session_affinity.is_some() {
            lock(&self.pins).set(client, service, port, endpoint, self.now());
        }
    }

    /// A connection to a Service begins.
    pub(crate) fn begun(&self, service: &Service) {
        lock(&self.budgets).connection(service, self.now());
    }

    /// Whether the Service may cost one more attempt; if so it is taken.
    pub(crate) fn take_retry(&self, service: &Service) -> bool {
        let taken = lock(&self.budgets).take(service, self.now());
        let counter = if taken { &self.granted } else { &self.denied };
        counter.fetch_add(1, Ordering::Relaxed);
        taken
    }

    /// `source` could not reach the endpoint.
    pub(crate) fn failed(&self, source: &WorkloadUid, endpoint: SocketAddr) {
        lock(&self.avoided).failed(source, endpoint, self.now());
    }

    /// `source` reached the endpoint; answers whether that was in doubt.
    pub(crate) fn reached(&self, source: &WorkloadUid, endpoint: SocketAddr) -> bool {
        let mut avoided = lock(&self.avoided);
        !avoided.doubts_nothing(self.now()) && avoided.reached(source, endpoint)
    }

    /// Attempts with another endpoint that were made, and that the budget did not allow.
    pub(crate) fn retries(&self) -> [(&'static str, u64); 2] {
        [
            ("made", self.granted.load(Ordering::Relaxed)),
            ("out_of_budget", self.denied.load(Ordering::Relaxed)),
        ]
    }

    /// How full the tables are.
    pub(crate) fn entries(&self) -> [(&'static str, usize); 4] {
        let now = self.now();
        [
            ("avoided", lock(&self.avoided).len(now)),
            ("budgets", lock(&self.budgets).len(now)),
            ("loads", self.loads.len()),
            ("pins", lock(&self.pins).len(now)),
        ]
    }
}

struct SeenBy<'a> {
    balancer: &'a Balancer,
    source: &'a WorkloadUid,
    now: Duration,
    /// Mostly false, and then a Service with a thousand endpoints is not looked up a thousand times.
    any_avoided: bool,
}

impl Balance for SeenBy<'_> {
    fn load(&self, endpoint: SocketAddr) -> u64 {
        self.balancer.loads.of(endpoint)
    }

    fn is_avoided(&self, endpoint: SocketAddr) -> bool {
        self.any_avoided && lock(&self.balancer.avoided).contains(self.source, endpoint, self.now)
    }

    fn pinned(&self, client: IpAddr, service: &Service, port: u16) -> Option<SocketAddr> {
        lock(&self.balancer.pins).get(client, service, port, self.now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks; if something did, a table of hints is good enough as it is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
