//! Readiness of descriptors that tokio has no type for.

use std::{io, os::fd::AsRawFd};
use tokio::io::unix::AsyncFd;

/// Registers a ring buffer's owner with the runtime of this task.
///
/// `T` is one of aya's owners of a map: the same descriptor for as long as it lives, closed only when it is dropped.
pub(crate) fn of_map<T: AsRawFd + OwnsItsMap>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: by `OwnsItsMap`, the descriptor is the same at each call and open until the owner is dropped, which
    // `AsyncFd` does after it has deregistered it.
    unsafe { AsyncFd::register(owner) }.map_err(io::Error::from)
}

/// Marks types that own the descriptor that `as_raw_fd` gives and never change it.
pub(crate) trait OwnsItsMap {}

impl OwnsItsMap for aya::maps::RingBuf<aya::maps::MapData> {}
impl OwnsItsMap for crate::kernel::diagnostics::Logger {}
