//! The numbers: Istio's TCP metrics, the agent's own, and whatever other stages register.

mod dry_run;
mod expose;
pub mod families;
mod foreign_clusters;
mod labels;
mod process;
mod series;
#[cfg(test)]
mod tests;
mod traffic;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use tramline_core::cluster::ClusterName;
use tramline_core::reason::Reason;

use super::access_log::AccessLog;
use super::connections::{Connections, Live, LiveState};
use super::record::{ConnectionInfo, Outcome, Path, Reporter, Verdict};
use dry_run::DryRuns;
use expose::Snapshot;
use families::Family;
use foreign_clusters::ForeignClusters;
use labels::{Label, NO_FLAGS, OTHER, TcpLabels, UNKNOWN};
use process::Process;
pub use series::{IDLE_LABEL_SET, MAX_LABEL_SETS, Series};
pub use traffic::{Pair, Traffic};

/// One value at the moment of a scrape.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Values of the family's labels, in its order.
    pub labels: Vec<String>,
    /// The value.
    pub value: Value,
}

/// What a metric has at one moment.
#[derive(Debug, Clone)]
pub enum Value {
    /// Of a counter or a gauge.
    Number(f64),
    /// Of a histogram.
    Histogram(Histogram),
}

impl Sample {
    /// A value with labels.
    pub fn new<const N: usize>(labels: [&str; N], value: f64) -> Self {
        Self {
            labels: labels.map(str::to_owned).into(),
            value: Value::Number(value),
        }
    }

    /// A value of a family without labels.
    pub fn plain(value: f64) -> Self {
        Self {
            labels: Vec::new(),
            value: Value::Number(value),
        }
    }

    /// A histogram with labels.
    pub fn histogram<const N: usize>(labels: [&str; N], histogram: &Histogram) -> Self {
        Self {
            labels: labels.map(str::to_owned).into(),
            value: Value::Histogram(histogram.clone()),
        }
    }

    /// A counter or a size; exact up to 2^53.
    #[expect(
        clippy::cast_precision_loss,
        reason = "the exposition format's numbers are doubles"
    )]
    pub fn count<const N: usize>(labels: [&str; N], value: u64) -> Self {
        Self::new(labels, value as f64)
    }
}

/// How the metrics are kept.
#[derive(Debug, Clone)]
pub struct MetricsSettings {
    /// This agent's cluster.
    pub cluster: ClusterName,
    /// Distinct label sets kept for the TCP metrics.
    pub max_label_sets: usize,
    /// How long a label set is kept that no connection has, once there are that many.
    pub idle_label_set: std::time::Duration,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            cluster: ClusterName::default(),
            max_label_sets: MAX_LABEL_SETS,
            idle_label_set: IDLE_LABEL_SET,
        }
    }
}

/// All metrics of one agent.
pub struct Metrics {
    cluster: ClusterName,
    foreign: ForeignClusters,
    series: series::Table,
    /// By reporter.
    open: [AtomicU64; 2],
    /// By reporter; only reasons that occurred.
    verdicts: Mutex<HashMap<(usize, Reason), u64>>,
    dry_runs: DryRuns,
    /// Seconds from accept to both halves being open, by reporter and path.
    connect: [[Histogram; Path::ALL.len()]; Reporter::ALL.len()],
    sources: Mutex<Vec<Source>>,
}

/// Something that is asked for its values at each scrape.
struct Source {
    family: &'static Family,
    read: Arc<dyn Fn() -> Vec<Sample> + Send + Sync>,
}

impl Metrics {
    /// Metrics with nothing counted yet.
    pub fn new(settings: MetricsSettings) -> Self {
        Self {
            cluster: settings.cluster,
            foreign: ForeignClusters::default(),
            series: series::Table::new(settings.max_label_sets, settings.idle_label_set),
            open: Default::default(),
            verdicts: Mutex::default(),
            dry_runs: DryRuns::new(settings.idle_label_set),
            connect: Reporter::ALL.map(|_| Path::ALL.map(|_| crate::latency::histogram())),
            sources: Mutex::default(),
        }
    }

    /// Has `read` called at each scrape for the values of `family` (one of [`families`]). It must not block. Several
    /// sources of one family are exposed together and must not repeat each other's labels.
    pub fn register(&self, family: &'static Family, read: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        let source = Source {
            family,
            read: Arc::new(read),
        };
        self.sources
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(source);
    }

    pub(super) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    pub(super) fn opened(&self, reporter: Reporter) {
        self.open[reporter.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Fixes the label set of a connection and counts it as opened; once only.
    pub(super) fn established(&self, live: &Live) {
        self.ensure_established(&mut live.state());
    }

    /// Notes how long it took until a connection was up.
    pub(super) fn connected(&self, live: &Live, took: Duration) {
        let mut state = live.state();
        if state.connect.is_none() {
            state.connect = Some(took);
            let info = &state.info;
            self.connect[info.reporter.index()][info.path.index()].observe(took.as_secs_f64());
        }
    }

    fn ensure_established(&self, state: &mut LiveState) -> Arc<Series> {
        if let Some(series) = &state.series {
            return Arc::clone(series);
        }
        let labels = TcpLabels::of(&state.info, self.clusters(&state.info));
        let series = self.series.series(state.info.reporter, labels);
        series.opened.fetch_add(1, Ordering::Relaxed);
        state.series = Some(Arc::clone(&series));
        series
    }

    fn clusters(&self, info: &ConnectionInfo) -> [Label; 2] {
        info.clusters(&self.cluster).map(|name| match name {
            None => UNKNOWN,
            Some(name) if *name == self.cluster || self.foreign.admit(name) => {
                Label::Shared(Arc::clone(name.shared()))
            }
            Some(_) => OTHER,
        })
    }

    /// Adds the bytes moved since the last report. Bytes prove that the connection was established.
    pub(super) fn report(&self, live: &Live) {
        let mut state = live.state();
        let now = (live.counters.to_destination(), live.counters.to_source());
        let received = now.0.saturating_sub(state.reported.0);
        let sent = now.1.saturating_sub(state.reported.1);
        if received == 0 && sent == 0 {
            return;
        }
        state.reported = now;
        let series = self.ensure_established(&mut state);
        series.received.fetch_add(received, Ordering::Relaxed);
        series.sent.fetch_add(sent, Ordering::Relaxed);
    }

    /// It is open, but not followed here any more.
    pub(super) fn handed_over(&self, live: &Live) {
        self.report(live);
        let reporter = live.state().info.reporter;
        self.open[reporter.index()].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self, live: &Live, outcome: &Outcome) {
        self.report(live);
        let state = live.state();
        let reporter = state.info.reporter;
        self.open[reporter.index()].fetch_sub(1, Ordering::Relaxed);
        let flags = outcome.reason.response_flags();
        match &state.series {
            None => {
                let labels =
                    TcpLabels::of(&state.info, self.clusters(&state.info)).with_response_flags(flags);
                self.series
                    .series(reporter, labels)
                    .failed
                    .fetch_add(1, Ordering::Relaxed);
            }
            // `other` stands for every value of every label, flags included.
            Some(series) if flags == NO_FLAGS || self.series.is_other(series) => {
                series.closed.fetch_add(1, Ordering::Relaxed);
                self.series.touch(series);
            }
            Some(series) => {
                self.series.touch(series);
                let labels = series.labels.clone().with_response_flags(flags);
                self.series
                    .series(reporter, labels)
                    .closed
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Some(dry_run) = &state.info.dry_run {
            self.dry_runs.count(outcome.verdict(), dry_run);
        }
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        *verdicts.entry((reporter.index(), outcome.reason)).or_default() += 1;
    }

    /// OpenMetrics text, ending in `# EOF`.
    pub(super) fn render(&self, connections: &Connections, access_log: &AccessLog) -> String {
        let snapshot = Snapshot {
            series: self.series.all(),
            samples: self.samples(connections, access_log),
        };
        snapshot.text()
    }

    /// Everything but the TCP metrics, by family name.
    fn samples(
        &self,
        connections: &Connections,
        access_log: &AccessLog,
    ) -> HashMap<&'static str, Vec<Sample>> {
        let mut samples = HashMap::<&'static str, Vec<Sample>>::new();
        let mut put = |family: &Family, values: Vec<Sample>| {
            samples.entry(family.name).or_default().extend(values);
        };
        put(
            &families::CONNECTIONS_OPEN,
            Reporter::ALL.map(|r| self.open_now(r)).into(),
        );
        put(&families::VERDICTS, self.verdicts());
        put(&families::DRY_RUN, self.dry_runs.samples());
        put(&families::CONNECT_SECONDS, self.connect_times());
        put(
            &families::CONNECTIONS_UNLISTED,
            vec![Sample::count([], connections.unlisted())],
        );
        put(
            &families::METRIC_LABEL_SETS,
            vec![Sample::count([], self.series.len() as u64)],
        );
        put(
            &families::METRIC_LABEL_SETS_OVERFLOWED,
            vec![Sample::count([], self.series.overflowed())],
        );
        put(
            &families::METRIC_LABEL_SETS_EXPIRED,
            vec![Sample::count([], self.series.expired())],
        );
        put(
            &families::ACCESS_LOG_WAITING,
            vec![Sample::count([], access_log.waiting() as u64)],
        );
        put(
            &families::ACCESS_LOG_WRITTEN,
            vec![Sample::count([], access_log.written())],
        );
        put(
            &families::ACCESS_LOG_DROPPED,
            vec![Sample::count([], access_log.dropped())],
        );
        put(
            &families::BUILD_INFO,
            vec![Sample::new([super::VERSION, super::COMMIT], 1.0)],
        );
        let process = Process::read();
        let plain = |value: Option<f64>| value.map(Sample::plain).into_iter().collect::<Vec<_>>();
        put(&families::PROCESS_OPEN_FDS, plain(process.open_fds));
        put(&families::PROCESS_MAX_FDS, plain(process.max_fds));
        put(&families::PROCESS_RESIDENT_MEMORY, plain(process.resident_bytes));
        put(&families::PROCESS_CPU, plain(process.cpu_seconds));
        put(&families::PROCESS_THREADS, plain(process.threads));
        let sources: Vec<_> = {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            sources
                .iter()
                .map(|source| (source.family, Arc::clone(&source.read)))
                .collect()
        };
        for (family, read) in sources {
            put(family, read());
        }
        samples
    }

    fn open_now(&self, reporter: Reporter) -> Sample {
        Sample::count(
            [reporter.as_str()],
            self.open[reporter.index()].load(Ordering::Relaxed),
        )
    }

    fn verdicts(&self) -> Vec<Sample> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |(&(reporter, reason), &n): (&(usize, Reason), &u64)| {
            let (reporter, verdict) = (Reporter::ALL[reporter], Verdict::of(reason));
            Sample::count([reporter.as_str(), verdict.as_str(), reason.as_str()], n)
        };
        verdicts.iter().map(count).collect()
    }

    fn connect_times(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (reporter, by_path) in Reporter::ALL.iter().zip(&self.connect) {
            for (path, histogram) in Path::ALL.iter().zip(by_path) {
                samples.push(Sample::histogram([reporter.as_str(), path.as_str()], histogram));
            }
        }
        samples
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("label_sets", &self.series.len())
            .finish_non_exhaustive()
    }
}
