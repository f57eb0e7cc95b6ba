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

/// Between which of the values the median of what they are samples of lies with 95 per cent certainty: by ranks (sign
/// test), so whatever the distribution. None of fewer than six.
pub(crate) fn interval(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let all = 2_f64.powi(i32::try_from(sorted.len()).ok()?);
    let (mut below, mut ways, mut rank) = (0.0, 1.0, 0);
    // `below`: how probable it is that at most `rank` of the values are below the median.
    while 2.0 * (below + ways / all) <= 0.05 {
        below += ways / all;
        ways *= (sorted.len() - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let low = sorted.get(rank.checked_sub(1)?)?;
    let high = sorted.get(sorted.len().checked_sub(rank)?)?;
    Some([*low, *high])
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
    fn the_interval_is_that_of_the_tables() {
        let to = |n: u32| (1..=n).map(f64::from).collect::<Vec<_>>();
        assert_eq!(
            interval(&to(5)),
            None,
            "even all five say it with 94 per cent only"
        );
        // Conover, Practical Nonparametric Statistics: the ranks for 95 per cent.
        for (n, ends) in [
            (6, [1.0, 6.0]),
            (10, [2.0, 9.0]),
            (15, [4.0, 12.0]),
            (20, [6.0, 15.0]),
        ] {
            assert_eq!(interval(&to(n)), Some(ends), "{n}");
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }
}
