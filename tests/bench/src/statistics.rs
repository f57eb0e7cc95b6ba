//! Percentiles and medians.

use std::time::Duration;

use crate::load::Latency;

/// The percentiles of many measurements; none of nothing.
pub(crate) fn latency(mut each: Vec<Duration>) -> Option<Latency> {
    each.sort_unstable();
    Some(Latency {
        p50: micros(*percentile(&each, 50)?),
        p99: micros(*percentile(&each, 99)?),
    })
}

/// The middle value, or the mean of the two in the middle; none of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let high = *sorted.get(sorted.len() / 2)?;
    let low = *sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(low, high))
}

/// Nearest rank: the smallest value that is not below `percent` of all.
fn percentile<T>(sorted: &[T], percent: usize) -> Option<&T> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&hundred, 50), Some(&50));
        assert_eq!(percentile(&hundred, 99), Some(&99));
        assert_eq!(percentile(&[4], 99), Some(&4));
        assert_eq!(percentile::<u32>(&[], 50), None);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
