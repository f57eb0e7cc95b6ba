//! Follows each connection from `open` to its one log line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tramline_core::cluster::ClusterName;
use tramline_core::counters::ByteCounters;
use tramline_core::reason::Reason;

use super::access_log::{AccessLog, Entry};
use super::connections::{Connections, Live};
use super::metrics::{Metrics, Pair, Traffic};
use super::record::{ConnectionInfo, Outcome, Verdict};

/// Where every connection reports; built once at start and handed to the stages.
#[derive(Debug)]
pub struct Observer {
    metrics: Metrics,
    connections: Connections,
    access_log: AccessLog,
}

impl Observer {
    /// An observer that writes to `access_log`.
    pub fn new(metrics: Metrics, connections: Connections, access_log: AccessLog) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            connections,
            access_log,
        })
    }

    /// Starts following a connection. It is logged exactly once: at [`OpenConnection::finish`], or when dropped.
    pub fn open(self: &Arc<Self>, info: ConnectionInfo) -> OpenConnection {
        self.open_with(info, Arc::default())
    }

    /// The same for the second side of a connection that this agent carries from end to end: one relay, one pair of
    /// counters, two records.
    pub fn open_with(self: &Arc<Self>, info: ConnectionInfo, counters: Arc<ByteCounters>) -> OpenConnection {
        self.open_since(info, counters, Instant::now())
    }

    /// The same for a connection that began a moment ago, in the kernel.
    pub fn open_since(
        self: &Arc<Self>,
        info: ConnectionInfo,
        counters: Arc<ByteCounters>,
        opened: Instant,
    ) -> OpenConnection {
        self.metrics.opened(info.reporter);
        let live = self.connections.insert(info, counters, opened);
        OpenConnection {
            observer: Arc::clone(self),
            live,
            outcome: None,
            ended: None,
            handed_over: false,
        }
    }

    /// The cluster this agent is in.
    pub fn cluster(&self) -> &ClusterName {
        self.metrics.cluster()
    }

    /// The numbers, for stages that register their own.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The connections of this moment.
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// The access log, to be flushed at shutdown.
    pub fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    /// All metrics in OpenMetrics text. The bytes of live connections are added first, so every scrape is exact.
    pub fn render(&self) -> String {
        self.connections.for_each(|live| self.metrics.report(live));
        self.metrics.render(&self.connections, &self.access_log)
    }

    /// What went between workloads since the start, live connections included.
    pub fn traffic(&self) -> BTreeMap<Pair, Traffic> {
        self.connections.for_each(|live| self.metrics.report(live));
        self.metrics.traffic()
    }
}

/// A connection being followed. Dropping it unfinished records [`Reason::Cancelled`].
#[derive(Debug)]
pub struct OpenConnection {
    observer: Arc<Observer>,
    live: Arc<Live>,
    outcome: Option<Outcome>,
    /// When it ended, where that is told later.
    ended: Option<Instant>,
    /// Another agent records its end.
    handed_over: bool,
}

impl OpenConnection {
    /// The counters to give to the relay.
    pub fn counters(&self) -> &Arc<ByteCounters> {
        &self.live.counters
    }

    /// Adds what was learned since `open`. Before [`OpenConnection::established`] it shapes the metric labels, later
    /// only the access log: a series already counted in does not change its name.
    pub fn learn(&self, update: impl FnOnce(&mut ConnectionInfo)) {
        let mut state = self.live.state();
        let reporter = state.info.reporter;
        update(&mut state.info);
        // The gauge of open connections counts by it.
        state.info.reporter = reporter;
    }

    /// The connection is up from end to end: counts it as opened.
    pub fn established(&self) {
        self.established_after(self.live.opened.elapsed());
    }

    /// The same for a connection of which the kernel says how long it took.
    pub fn established_after(&self, took: Duration) {
        self.observer.metrics.connected(&self.live, took);
        self.observer.metrics.established(&self.live);
    }

    /// Stops following a connection that goes on in the kernel: its line is written by the agent that sees its end.
    pub fn hand_over(mut self) {
        self.handed_over = true;
    }

    /// Ends the record of a connection that ended a moment ago, in the kernel.
    pub fn finish_at(mut self, outcome: impl Into<Outcome>, ended: Instant) {
        self.outcome = Some(outcome.into());
        self.ended = Some(ended);
    }

    /// Ends the record.
    pub fn finish(mut self, outcome: impl Into<Outcome>) {
        self.outcome = Some(outcome.into());
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let outcome = self
            .outcome
            .take()
            .unwrap_or_else(|| Outcome::new(Reason::Cancelled));
        let observer = &self.observer;
        observer.connections.remove(&self.live);
        if self.handed_over {
            return observer.metrics.handed_over(&self.live);
        }
        // Allowed connections were established even if nobody said so; then opened and closed still match.
        if outcome.verdict() == Verdict::Allow {
            observer.metrics.established(&self.live);
        }
        observer.metrics.closed(&self.live, &outcome);
        let (info, connect) = {
            let state = self.live.state();
            (state.info.clone(), state.connect)
        };
        observer.access_log.write(Entry {
            time: SystemTime::now(),
            duration: self
                .ended
                .unwrap_or_else(Instant::now)
                .saturating_duration_since(self.live.opened),
            connect,
            to_destination: self.live.counters.to_destination(),
            to_source: self.live.counters.to_source(),
            cluster: observer.cluster().clone(),
            info,
            outcome,
        });
    }
}
