//! One scrape as OpenMetrics text.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::families::{self, Family, Kind};
use super::{Sample, Series, Value, labels};

/// All values of one scrape.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) series: Vec<Arc<Series>>,
    /// Everything but the TCP metrics, by family name.
    pub(super) samples: HashMap<&'static str, Vec<Sample>>,
}

impl Snapshot {
    /// OpenMetrics text, ending in `# EOF`.
    pub(super) fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a String cannot fail, and what is cut short has no `# EOF`, which a scraper refuses.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in families::ALL {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
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
            let is_histogram = matches!(sample.value, Value::Histogram(_));
            if sample.labels.len() != family.labels.len() || is_histogram != (family.kind == Kind::Histogram)
            {
                tracing::error!(metric = family.name, labels = ?sample.labels, "a sample of another shape is left out");
                continue;
            }
            let labels: Vec<_> = family
                .labels
                .iter()
                .zip(&sample.labels)
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            match &sample.value {
                Value::Histogram(histogram) => histogram.encode(metric.encode_family(&labels)?)?,
                Value::Number(number) if labels.is_empty() => encode_number(metric, family.kind, *number)?,
                Value::Number(number) => {
                    encode_number(&mut metric.encode_family(&labels)?, family.kind, *number)?;
                }
            }
        }
        Ok(())
    }
}

fn encode_number(metric: &mut MetricEncoder<'_>, kind: Kind, number: f64) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, _, u64>(&number, None),
        Kind::Gauge | Kind::Histogram => metric.encode_gauge(&number),
    }
}
