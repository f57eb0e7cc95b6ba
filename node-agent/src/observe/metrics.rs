//! The numbers: Istio's TCP metrics, the agent's own, and whatever other stages register.

pub mod families;
mod labels;
mod process;
mod series;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tramline_core::reason::Reason;

use super::access_log::AccessLog;
use super::connections::{Connections, Live, LiveState};
use super::record::{Outcome, Reporter, Verdict};
use families::{Family, Kind};
use labels::{NO_FLAGS, TcpLabels};
use process::Process;
pub use series::{IDLE_LABEL_SET, MAX_LABEL_SETS, Series};

/// One value at the moment of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Values of the family's labels, in its order.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Sample {
    /// A value with labels.
    pub fn new<const N: usize>(labels: [&str; N], value: f64) -> Self {
        Self {
            labels: labels.map(str::to_owned).into(),
            value,
        }
    }

    /// A value of a family without labels.
    pub fn plain(value: f64) -> Self {
        Self {
            labels: Vec::new(),
            value,
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
    /// Value of `source_cluster` and `destination_cluster`; Istio's default is `Kubernetes`.
    pub cluster: Arc<str>,
    /// Distinct label sets kept for the TCP metrics.
    pub max_label_sets: usize,
    /// How long a label set is kept that no connection has, once there are that many.
    pub idle_label_set: std::time::Duration,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            cluster: "Kubernetes".into(),
            max_label_sets: MAX_LABEL_SETS,
            idle_label_set: IDLE_LABEL_SET,
        }
    }
}

/// All metrics of one agent.
pub struct Metrics {
    cluster: Arc<str>,
    series: series::Table,
    /// By reporter.
    open: [AtomicU64; 2],
    /// By reporter; only reasons that occurred.
    refused: Mutex<HashMap<(usize, Reason), u64>>,
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
            series: series::Table::new(settings.max_label_sets, settings.idle_label_set),
            open: Default::default(),
            refused: Mutex::default(),
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

    pub(super) fn opened(&self, reporter: Reporter) {
        self.open[reporter.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// Fixes the label set of a connection and counts it as opened; once only.
    pub(super) fn established(&self, live: &Live) {
        self.ensure_established(&mut live.state());
    }

    fn ensure_established(&self, state: &mut LiveState) -> Arc<Series> {
        if let Some(series) = &state.series {
            return Arc::clone(series);
        }
        let labels = TcpLabels::of(&state.info, &self.cluster);
        let series = self.series.series(state.info.reporter, labels);
        series.opened.fetch_add(1, Ordering::Relaxed);
        state.series = Some(Arc::clone(&series));
        series
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

    pub(super) fn closed(&self, live: &Live, outcome: &Outcome) {
        self.report(live);
        let state = live.state();
        let reporter = state.info.reporter;
        self.open[reporter.index()].fetch_sub(1, Ordering::Relaxed);
        let flags = outcome.reason.response_flags();
        match &state.series {
            None => {
                let labels = TcpLabels::of(&state.info, &self.cluster).with_response_flags(flags);
                self.series
                    .series(reporter, labels)
                    .failed
                    .fetch_add(1, Ordering::Relaxed);
            }
            // `other` stands for every value of every label, flags included.
            Some(series) if flags == NO_FLAGS || self.series.is_other(series) => {
                series.closed.fetch_add(1, Ordering::Relaxed);
            }
            Some(series) => {
                let labels = series.labels.clone().with_response_flags(flags);
                self.series
                    .series(reporter, labels)
                    .closed
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
        if outcome.verdict() != Verdict::Allow {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            *refused.entry((reporter.index(), outcome.reason)).or_default() += 1;
        }
    }

    /// OpenMetrics text, ending in `# EOF`.
    pub(super) fn render(&self, connections: &Connections, access_log: &AccessLog) -> String {
        let snapshot = Snapshot {
            series: self.series.all(),
            samples: self.samples(connections, access_log),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(snapshot));
        let mut text = String::new();
        // Writing to a String cannot fail, and what is cut short has no `# EOF`, which a scraper refuses.
        let _ = encode(&mut text, &registry);
        text
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
        put(&families::CONNECTIONS_REFUSED, self.refusals());
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

    fn refusals(&self) -> Vec<Sample> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |(&(reporter, reason), &n): (&(usize, Reason), &u64)| {
            Sample::count([Reporter::ALL[reporter].as_str(), reason.as_str()], n)
        };
        refused.iter().map(count).collect()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("label_sets", &self.series.len())
            .finish_non_exhaustive()
    }
}

/// All values of one scrape.
#[derive(Debug)]
struct Snapshot {
    series: Vec<Arc<Series>>,
    samples: HashMap<&'static str, Vec<Sample>>,
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in families::ALL {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            if family.labels == labels::TCP_LABELS.as_slice() {
                self.encode_series(family, &mut metric)?;
            } else {
                self.encode_samples(family, &mut metric)?;
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn encode_series(&self, family: &Family, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        for series in &self.series {
            let established = series.was_established();
            let value = match family.name {
                name if name == families::TCP_OPENED.name => established.then_some(&series.opened),
                name if name == families::TCP_CLOSED.name => established.then_some(&series.closed),
                name if name == families::TCP_SENT.name => established.then_some(&series.sent),
                name if name == families::TCP_RECEIVED.name => established.then_some(&series.received),
                _ => (series.failed.load(Ordering::Relaxed) > 0).then_some(&series.failed),
            };
            let Some(value) = value else { continue };
            let labels: Vec<_> = family
                .labels
                .iter()
                .zip(&series.labels.0)
                .map(|(name, label)| (*name, label.as_str()))
                .collect();
            let value = value.load(Ordering::Relaxed);
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn encode_samples(&self, family: &Family, metric: &mut MetricEncoder<'_>) -> fmt::Result {
        for sample in self.samples.get(family.name).into_iter().flatten() {
            if sample.labels.len() != family.labels.len() {
                tracing::error!(metric = family.name, labels = ?sample.labels, "a sample with the wrong labels is left out");
                continue;
            }
            let labels: Vec<_> = family
                .labels
                .iter()
                .zip(&sample.labels)
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            if labels.is_empty() {
                encode_value(metric, family.kind, sample.value)?;
            } else {
                encode_value(&mut metric.encode_family(&labels)?, family.kind, sample.value)?;
            }
        }
        Ok(())
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, kind: Kind, value: f64) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&value, None),
        Kind::Gauge => metric.encode_gauge(&value),
    }
}
