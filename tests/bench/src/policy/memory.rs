//! What a mesh keeps in memory for each of its workloads.

use std::hint::black_box;

use anyhow::Result;

use super::{Row, made};
use crate::GLOBAL;

pub(super) fn row(workloads: u32, rounds: u32) -> Result<Row> {
    let mut runs = Vec::new();
    for _ in 0..rounds.min(3) {
        let before = live();
        let mesh = made::mesh(made::objects(workloads)?)?;
        let grown = live().saturating_sub(before);
        black_box(mesh);
        runs.push(grown as f64 / f64::from(workloads));
    }
    Row::new("memory", workloads, "bytes_per_workload", "bytes", runs)
}

/// Bytes that are allocated now.
fn live() -> usize {
    let stats = GLOBAL.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}
