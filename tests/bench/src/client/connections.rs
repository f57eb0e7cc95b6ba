//! Short connections, some at a time.

use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::once;
use crate::load::Outcome;
use crate::statistics;

/// Enough for caches to be warm and a sleeping processor to be awake.
const WARM_UP: usize = 100;

pub(super) fn run(server: Ipv4Addr, count: usize, concurrent: usize, marked: bool) -> Result<Outcome> {
    ensure!(
        concurrent > 0 && count.is_multiple_of(concurrent),
        "{count} connections, {concurrent} at a time"
    );
    some(server, WARM_UP, marked)?;
    let begin = Barrier::new(concurrent + 1);
    let (each, seconds) = thread::scope(|scope| {
        let threads: Vec<_> = (0..concurrent)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    some(server, count / concurrent, marked)
                })
            })
            .collect();
        begin.wait();
        let start = Instant::now();
        let mut each = Vec::with_capacity(count);
        for thread in threads {
            each.extend(thread.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        anyhow::Ok((each, start.elapsed().as_secs_f64()))
    })?;
    Ok(Outcome {
        seconds,
        units: each.len() as u64,
        // And the very first connection, before all loads.
        performed: (each.len() + WARM_UP + 1) as u64,
        latency: statistics::latency(each),
    })
}

fn some(server: Ipv4Addr, count: usize, marked: bool) -> Result<Vec<Duration>> {
    let one = |_| {
        let begin = Instant::now();
        once(server, marked)?;
        Ok(begin.elapsed())
    };
    (0..count).map(one).collect()
}
