//! Histograms of times: one set of buckets for all, so that they can be compared.

use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds in seconds: from what one node needs to the longest wait there is.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// An empty histogram of seconds; a clone counts into the same.
pub(crate) fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}
