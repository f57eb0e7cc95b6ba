//! Events of the programs, as a stream.

use aya::maps::{MapData, RingBuf};
use std::io;
use tokio::io::unix::AsyncFd;
use tramline_common::event::Event;

/// Reads the ring buffer as it fills.
pub(crate) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        Ok(Self {
            ring: crate::sys::readiness::of_map(ring)?,
        })
    }

    /// Waits for events and appends at most 256 of them to `batch`.
    pub(crate) async fn read(&mut self, batch: &mut Vec<Event>) -> io::Result<()> {
        let mut ready = self.ring.readable_mut().await?;
        let ring = ready.get_inner_mut();
        for _ in 0..256 {
            let Some(item) = ring.next() else {
                ready.clear_ready();
                return Ok(());
            };
            batch.extend(Event::from_bytes(&item));
        }
        Ok(())
    }
}
