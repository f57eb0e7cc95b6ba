//! Events of the programs, as a stream.

use aya::maps::{MapData, RingBuf};
use std::io;
use tokio::io::unix::AsyncFd;
use tramline_common::{event::Event, verdict::Passage};

/// Records that one read brings, at most.
const BATCH: usize = 256;

/// Reads the ring buffer of refusals as it fills.
pub(crate) struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        let ring = crate::sys::readiness::of_map(ring)?;
        Ok(Self { ring })
    }

    /// Waits for events and appends at most 256 of them to `batch`.
    pub(crate) async fn read(&mut self, batch: &mut Vec<Event>) -> io::Result<()> {
        read(&mut self.ring, batch, Event::from_bytes).await
    }
}

/// Reads the ring buffer of connections that the kernel let pass as it fills.
pub(crate) struct Passages {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Passages {
    /// Records that one read brings, at most.
    pub(crate) const BATCH: usize = BATCH;

    /// Must be called inside a tokio runtime.
    pub(crate) fn new(ring: RingBuf<MapData>) -> io::Result<Self> {
        let ring = crate::sys::readiness::of_map(ring)?;
        Ok(Self { ring })
    }

    /// Waits for passages and appends at most 256 of them to `batch`.
    pub(crate) async fn read(&mut self, batch: &mut Vec<Passage>) -> io::Result<()> {
        read(&mut self.ring, batch, Passage::from_bytes).await
    }
}

async fn read<T>(
    ring: &mut AsyncFd<RingBuf<MapData>>,
    batch: &mut Vec<T>,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<()> {
    let mut ready = ring.readable_mut().await?;
    let ring = ready.get_inner_mut();
    for _ in 0..BATCH {
        let Some(item) = ring.next() else {
            ready.clear_ready();
            return Ok(());
        };
        batch.extend(parse(&item));
    }
    Ok(())
}
