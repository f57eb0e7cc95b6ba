//! The clock that all processes of the machine share.

use anyhow::Result;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in nanoseconds, as the test application's probes write it (`begun_ns`, `ended_ns`).
///
/// # Errors
/// There is none.
pub fn now() -> Result<i64> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.num_nanoseconds())
}
