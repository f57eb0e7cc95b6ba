//! Readiness of descriptors that tokio has no type for.

use std::{io, os::fd::AsRawFd};
use tokio::io::unix::AsyncFd;

/// Registers the ring buffer with the runtime of this task.
pub(crate) fn of_ring(
    ring: aya::maps::RingBuf<aya::maps::MapData>,
) -> io::Result<AsyncFd<aya::maps::RingBuf<aya::maps::MapData>>> {
    debug_assert!(ring.as_raw_fd() >= 0);
    // SAFETY: `RingBuf` owns its map's descriptor, returns the same one each time and closes it only when dropped,
    // which `AsyncFd` does after it has deregistered it.
    unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)
}
