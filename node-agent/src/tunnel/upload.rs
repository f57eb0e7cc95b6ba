//! From the application's socket into the stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use tokio::net::tcp::ReadHalf;
use tokio_util::io::poll_read_buf;

use super::relay::Broken;

/// First read after idleness.
const SMALLEST_READ: usize = 16 << 10;
/// Largest read, reached by doubling while reads fill their buffer.
const LARGEST_READ: usize = 256 << 10;
/// Less than this is copied out of its buffer: queued in the tunnel it would keep the whole buffer alive.
const WORTH_COPYING: usize = 4 << 10;

/// How much to read next.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadSize(usize);

impl ReadSize {
    pub(super) const fn new() -> Self {
        Self(SMALLEST_READ)
    }

    pub(super) fn get(self) -> usize {
        self.0
    }

    /// Adapts to a read of `read` bytes into room for `room`.
    pub(super) fn adapt(&mut self, read: usize, room: usize) {
        if read == room && room >= self.0 {
            self.0 = (self.0 * 2).min(LARGEST_READ);
        } else if read < self.0 / 4 {
            self.0 = (self.0 / 2).max(SMALLEST_READ);
        }
    }
}

/// The direction from the socket into the stream.
#[derive(Debug)]
pub(super) struct Upload {
    size: ReadSize,
    ended: bool,
}

impl Upload {
    pub(super) const fn new() -> Self {
        Self {
            size: ReadSize::new(),
            ended: false,
        }
    }

    /// END_STREAM is sent.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Moves bytes until the socket has none, the tunnel takes none, or the socket's end was passed on.
    ///
    /// Nothing is read before the stream has room for it, so an application that outruns the other side is stopped
    /// by its own socket. While there is nothing to read there is neither a buffer nor reserved capacity: capacity
    /// held by idle streams would be missing to busy ones of the same connection.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut ReadHalf<'_>,
        stream: &mut SendStream<Bytes>,
        sent: impl Fn(u64),
    ) -> Poll<Result<(), Broken>> {
        let mut reserved = false;
        while !self.ended {
            match socket.as_ref().poll_read_ready(cx) {
                Poll::Ready(ready) => ready.map_err(Broken::Socket)?,
                Poll::Pending => {
                    if reserved {
                        stream.reserve_capacity(0);
                    }
                    return Poll::Pending;
                }
            }
            stream.reserve_capacity(self.size.get());
            reserved = true;
            let mut capacity = stream.capacity();
            while capacity == 0 {
                // `poll_capacity` reports increases only, hence the look at what is there already.
                match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(more)) => capacity = more,
                    Some(Err(error)) => return Poll::Ready(Err(Broken::Stream(Some(error)))),
                    None => return Poll::Ready(Err(Broken::Stream(None))),
                }
            }
            let room = capacity.min(self.size.get());
            let mut buffer = BytesMut::with_capacity(room);
            let Poll::Ready(read) = poll_read_buf(Pin::new(&mut *socket), cx, &mut buffer) else {
                stream.reserve_capacity(0);
                return Poll::Pending;
            };
            let read = read.map_err(Broken::Socket)?;
            self.size.adapt(read, room);
            let data = if read < WORTH_COPYING.min(room) {
                Bytes::copy_from_slice(&buffer)
            } else {
                buffer.freeze()
            };
            self.ended = read == 0;
            if self.ended {
                stream.reserve_capacity(0);
            }
            stream
                .send_data(data, self.ended)
                .map_err(|error| Broken::Stream(Some(error)))?;
            sent(read as u64);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_bulk_and_shrink_with_messages() {
        let mut size = ReadSize::new();
        for _ in 0..10 {
            size.adapt(size.get(), size.get());
        }
        assert_eq!(size.get(), LARGEST_READ);
        size.adapt(LARGEST_READ / 2, LARGEST_READ);
        assert_eq!(size.get(), LARGEST_READ, "half a buffer is still bulk");
        for _ in 0..10 {
            size.adapt(100, size.get());
        }
        assert_eq!(size.get(), SMALLEST_READ);
        size.adapt(10, 10);
        assert_eq!(
            size.get(),
            SMALLEST_READ,
            "a read bounded by capacity says nothing about the sender"
        );
    }
}
