//! One application connection over no tunnel.

use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio_util::io::poll_read_buf;
use tramline_core::counters::ByteCounters;
use tramline_core::reason::Reason;

use super::RelayEnd;
use super::relay::{AbortOnDrop, socket_error};
use super::upload::ReadSize;

/// Which of the two sockets failed.
enum Failed {
    Source(io::Error),
    Destination(io::Error),
}

/// Carries bytes between two sockets until both directions have ended or either side resets.
///
/// Half-close and reset travel as they are; dropping the future resets both sockets. There is no time limit.
pub async fn relay_tcp(source: TcpStream, destination: TcpStream, counters: &ByteCounters) -> RelayEnd {
    // Fails only on a socket that is gone already, which the first read tells.
    let _ = source.set_nodelay(true);
    let _ = destination.set_nodelay(true);
    let mut source = AbortOnDrop::new(source);
    let mut destination = AbortOnDrop::new(destination);
    let mut request = Copy::new();
    let mut response = Copy::new();
    let result = {
        let (mut from_source, to_source) = source.socket.split();
        let (mut from_destination, to_destination) = destination.socket.split();
        let mut source_error = pin!(socket_error(to_source.as_ref()));
        let mut destination_error = pin!(socket_error(to_destination.as_ref()));
        poll_fn(|cx| {
            let up = request
                .poll(cx, &mut from_source, to_destination.as_ref(), |n| {
                    counters.add_to_destination(n)
                })
                .map_err(|end| match end {
                    End::Read(error) => Failed::Source(error),
                    End::Write(error) => Failed::Destination(error),
                })?;
            let down = response
                .poll(cx, &mut from_destination, to_source.as_ref(), |n| {
                    counters.add_to_source(n)
                })
                .map_err(|end| match end {
                    End::Read(error) => Failed::Destination(error),
                    End::Write(error) => Failed::Source(error),
                })?;
            if up.is_ready() && down.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(error) = source_error.as_mut().poll(cx) {
                return Poll::Ready(Err(Failed::Source(error)));
            }
            if let Poll::Ready(error) = destination_error.as_mut().poll(cx) {
                return Poll::Ready(Err(Failed::Destination(error)));
            }
            Poll::Pending
        })
        .await
    };
    match result {
        Ok(()) => {
            source.disarm();
            destination.disarm();
            RelayEnd::ok()
        }
        Err(Failed::Source(error)) => RelayEnd {
            reason: Reason::ResetBySource,
            detail: Some(error.to_string()),
        },
        Err(Failed::Destination(error)) => {
            // What the destination sent before is in the source's socket buffer, and its end as well: closing
            // delivers both and answers later bytes with a reset, as the destination itself would have.
            if response.ended {
                source.disarm();
            }
            RelayEnd {
                reason: Reason::ResetByDestination,
                detail: Some(error.to_string()),
            }
        }
    }
}

/// Which end of a direction failed.
enum End {
    Read(io::Error),
    Write(io::Error),
}

/// One direction, with one buffer that exists only while it holds bytes.
struct Copy {
    buffer: BytesMut,
    size: ReadSize,
    finished: bool,
    ended: bool,
}

impl Copy {
    fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            size: ReadSize::new(),
            finished: false,
            ended: false,
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &TcpStream,
        sent: impl Fn(u64),
    ) -> Poll<Result<(), End>> {
        while !self.ended {
            if !self.buffer.is_empty() {
                let ready = match to.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready,
                    Poll::Pending => return Poll::Pending,
                };
                match ready.and_then(|()| to.try_write(&self.buffer)) {
                    Ok(bytes) => {
                        self.buffer.advance(bytes);
                        sent(bytes as u64);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(End::Write(error))),
                }
                continue;
            }
            if self.finished {
                SockRef::from(to).shutdown(Shutdown::Write).map_err(End::Write)?;
                self.buffer = BytesMut::new();
                self.ended = true;
                break;
            }
            match from.as_ref().poll_read_ready(cx) {
                Poll::Ready(ready) => ready.map_err(End::Read)?,
                Poll::Pending => {
                    self.buffer = BytesMut::new();
                    return Poll::Pending;
                }
            }
            let room = self.size.get();
            // Empty here, so this reclaims the allocation from its start or replaces one that is too small.
            self.buffer.clear();
            self.buffer.reserve(room);
            let Poll::Ready(read) = poll_read_buf(Pin::new(&mut *from), cx, &mut self.buffer) else {
                self.buffer = BytesMut::new();
                return Poll::Pending;
            };
            let read = read.map_err(End::Read)?;
            self.size.adapt(read, room);
            self.finished = read == 0;
        }
        Poll::Ready(Ok(()))
    }
}
