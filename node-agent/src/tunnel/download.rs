//! From the stream to the application's socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::buffers::Held;
use super::relay::Broken;

/// Frames written with one system call.
const GATHER: usize = 16;
/// Frames below this are joined when they pile up: each of them costs h2 far more than its bytes, until h2 ends the
/// whole connection (its `data_frame_budget`), and each keeps the read buffer alive that it came in.
const SMALL: usize = 512;
/// Frames that may wait as they came.
const LOOSE: usize = 4;
/// Joined frames become a chunk of about this size.
const JOINED: usize = 16 << 10;

/// The direction from the stream to the socket.
pub(super) struct Download {
    chunks: VecDeque<Bytes>,
    /// What waits for an application that does not read.
    held: Held,
    /// Small frames joined behind `chunks`.
    tail: BytesMut,
    /// The stream has delivered its end, or failed.
    finished: Option<Result<(), h2::Error>>,
    /// The end was passed on to the socket.
    ended: bool,
    /// The last look at the stream left its waker there.
    listening: bool,
}

impl Download {
    pub(super) fn new(held: Held) -> Self {
        Self {
            chunks: VecDeque::new(),
            held,
            tail: BytesMut::new(),
            finished: None,
            ended: false,
            listening: false,
        }
    }

    /// The stream's end was passed on as a shutdown.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The stream's own end came: a reset after it takes nothing away.
    pub(super) fn complete(&self) -> bool {
        matches!(self.finished, Some(Ok(())))
    }

    /// Whether a reset of the stream would wake this direction. If not, somebody else has to watch for it.
    pub(super) fn listening(&self) -> bool {
        self.listening
    }

    /// Moves bytes until the stream has none, the socket takes none, or the stream's end was passed on.
    ///
    /// The peer gets its window back only for bytes that the kernel took.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        stream: &mut RecvStream,
        sent: impl Fn(u64),
    ) -> Poll<Result<(), Broken>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        loop {
            self.pull(cx, stream, GATHER);
            if self.chunks.is_empty() {
                match self.finished.take() {
                    None => {
                        // Idle: keep no memory.
                        self.chunks = VecDeque::new();
                        self.held.release();
                        return Poll::Pending;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(Broken::Stream(Some(error)))),
                    Some(Ok(())) => {
                        self.finished = Some(Ok(()));
                        SockRef::from(socket)
                            .shutdown(Shutdown::Write)
                            .map_err(Broken::Socket)?;
                        self.ended = true;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let written = match socket.poll_write_ready(cx) {
                Poll::Ready(ready) => ready.and_then(|()| self.write(socket)),
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            };
            match written {
                Ok(bytes) => {
                    self.advance(bytes);
                    sent(bytes as u64);
                    // Fails only for a stream that is gone, which the next look reports.
                    let _ = stream.flow_control().release_capacity(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Stale readiness was cleared by the attempt; only a pending poll leaves a waker.
                    if socket.poll_write_ready(cx).is_ready() {
                        continue;
                    }
                    // All there is, within the stream's window: what h2 kept would be held without being counted.
                    self.pull(cx, stream, usize::MAX);
                    if self.held.hold(cx, stream.flow_control().used_capacity()) {
                        return Poll::Ready(Err(Broken::Buffers));
                    }
                    // The socket takes nothing and the stream was reset: no reason to wait for the socket.
                    return match self.finished.take() {
                        Some(Err(error)) => Poll::Ready(Err(Broken::Stream(Some(error)))),
                        finished => {
                            self.finished = finished;
                            Poll::Pending
                        }
                    };
                }
                Err(error) => return Poll::Ready(Err(Broken::Socket(error))),
            }
        }
    }

    /// Takes frames from the stream: up to `gather`, or as many as the window admits while they are small.
    fn pull(&mut self, cx: &mut Context<'_>, stream: &mut RecvStream, gather: usize) {
        let mut small = false;
        self.listening = false;
        while self.finished.is_none() && (small || self.chunks.len() < gather) {
            match stream.poll_data(cx) {
                Poll::Pending => {
                    self.listening = true;
                    break;
                }
                Poll::Ready(None) => self.finished = Some(Ok(())),
                Poll::Ready(Some(Err(error))) => self.finished = Some(Err(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    small = frame.len() < SMALL;
                    self.push(frame, small);
                }
            }
        }
        self.join();
    }

    fn push(&mut self, frame: Bytes, small: bool) {
        if small && (self.chunks.len() >= LOOSE || !self.tail.is_empty()) {
            self.tail.extend_from_slice(&frame);
            if self.tail.len() >= JOINED {
                self.join();
            }
        } else if !frame.is_empty() {
            self.join();
            self.chunks.push_back(frame);
        }
    }

    fn join(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn write(&self, socket: &TcpStream) -> io::Result<usize> {
        if let (1, Some(chunk)) = (self.chunks.len(), self.chunks.front()) {
            return socket.try_write(chunk);
        }
        let mut slices = [IoSlice::new(&[]); GATHER];
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            *slice = IoSlice::new(chunk);
        }
        let count = self.chunks.len().min(GATHER);
        socket.try_write_vectored(slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut bytes: usize) {
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.len() > bytes {
                chunk.advance(bytes);
                return;
            }
            bytes -= chunk.len();
            self.chunks.pop_front();
        }
    }
}
