//! One application connection over one stream.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use h2::Reason as ResetCode;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tramline_core::counters::ByteCounters;
use tramline_core::reason::Reason;

use super::TunnelStream;
use super::download::Download;
use super::reset;
use super::upload::Upload;

/// Which application stands at the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client: the socket is the source of the connection.
    Source,
    /// The server: the socket is its destination.
    Destination,
}

impl Side {
    /// The reset came from the application at the socket.
    fn here(self) -> Reason {
        match self {
            Self::Source => Reason::ResetBySource,
            Self::Destination => Reason::ResetByDestination,
        }
    }

    /// The reset came through the tunnel.
    fn beyond(self) -> Reason {
        match self {
            Self::Source => Reason::ResetByDestination,
            Self::Destination => Reason::ResetBySource,
        }
    }
}

/// How a relayed connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayEnd {
    /// [`Reason::Ok`], [`Reason::ResetBySource`], [`Reason::ResetByDestination`], [`Reason::LimitReached`], at the
    /// source why the destination's agent cut the connection, or why the tunnel ended: [`Reason::TunnelLost`] unless
    /// this agent ended it.
    pub reason: Reason,
    /// What was seen, for the log.
    pub detail: Option<String>,
}

impl RelayEnd {
    pub(super) fn ok() -> Self {
        Self {
            reason: Reason::Ok,
            detail: None,
        }
    }
}

/// What ended a connection before both directions were done.
#[derive(Debug)]
pub(super) enum Broken {
    /// The socket failed.
    Socket(io::Error),
    /// The stream failed, or is closed without h2 saying why.
    Stream(Option<h2::Error>),
    /// The application does not read, and the agent has no more room for it.
    Buffers,
}

/// Carries bytes between `tcp` and `stream` until both directions have ended or either side breaks off.
///
/// An end of file travels as END_STREAM and becomes a shutdown of writing at the other end, each direction on its
/// own. A reset of the socket resets the stream with INTERNAL_ERROR; a reset of the stream, or a lost tunnel, resets
/// the socket. Dropping the future resets both.
///
/// There is no time limit: a connection may be silent for as long as its applications like, and a lost tunnel is
/// noticed by its keepalive.
pub async fn relay(tcp: TcpStream, stream: TunnelStream, side: Side, counters: &ByteCounters) -> RelayEnd {
    // Messages must not wait for each other's acknowledgement; fails only on a socket that is gone already.
    let _ = tcp.set_nodelay(true);
    let mut tcp = AbortOnDrop::new(tcp);
    let mut stream = stream;
    let mut upload = Upload::new();
    let mut download = Download::new(stream.held());
    let broken = {
        let (mut reader, writer) = tcp.socket.split();
        let socket: &TcpStream = writer.as_ref();
        let mut watch = pin!(socket_error(socket));
        poll_fn(|cx| {
            let up = upload.poll(cx, &mut reader, &mut stream.send, |bytes| match side {
                Side::Source => counters.add_to_destination(bytes),
                Side::Destination => counters.add_to_source(bytes),
            })?;
            let down = download.poll(cx, socket, &mut stream.recv, |bytes| match side {
                Side::Source => counters.add_to_source(bytes),
                Side::Destination => counters.add_to_destination(bytes),
            })?;
            if up.is_ready() && down.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(error) = watch.as_mut().poll(cx) {
                return Poll::Ready(Err(Broken::Socket(error)));
            }
            if !download.listening() {
                match stream.send.poll_reset(cx) {
                    Poll::Ready(Ok(code)) => return Poll::Ready(Err(Broken::Stream(Some(code.into())))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Stream(Some(error)))),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    };
    match broken {
        Ok(()) => {
            tcp.disarm();
            stream.settled = true;
            RelayEnd::ok()
        }
        Err(Broken::Socket(error)) => {
            // An application that has sent everything and closed: what it sent may still be queued, and an explicit
            // reset would drop it. Dropped by the server, h2 sends NO_ERROR behind it (RFC 9113, section 8.1).
            if side == Side::Destination && upload.ended() {
                stream.settled = true;
            }
            stream.abort();
            RelayEnd {
                reason: side.here(),
                detail: Some(error.to_string()),
            }
        }
        Err(Broken::Buffers) => {
            stream.reset_with().reason(Reason::LimitReached);
            RelayEnd {
                reason: Reason::LimitReached,
                detail: Some(
                    "the application does not read, and the agent's buffers for such are full".to_owned(),
                ),
            }
        }
        Err(Broken::Stream(error)) => {
            stream.settled = true;
            let code = error
                .as_ref()
                .filter(|e| e.is_reset())
                .and_then(h2::Error::reason);
            if code == Some(ResetCode::NO_ERROR) && download.complete() && download.ended() {
                // The other side has sent everything and takes nothing more: closing says the same to this one.
                tcp.disarm();
                return RelayEnd {
                    reason: Reason::Ok,
                    detail: Some("the other side stopped reading".to_owned()),
                };
            }
            // Only the destination's agent decides who may stay; a client that claims a denial of its own is none.
            if let (Side::Source, Some(reason)) = (side, code.and_then(reset::reason_of)) {
                return RelayEnd {
                    reason,
                    detail: Some("cut by the destination's agent".to_owned()),
                };
            }
            let reason = if code.is_some() {
                side.beyond()
            } else {
                stream.cut_reason()
            };
            let detail = error.map_or_else(|| "the tunnel's stream closed".to_owned(), |e| e.to_string());
            RelayEnd {
                reason,
                detail: Some(detail),
            }
        }
    }
}

/// Waits for a reset of the socket, which nobody else notices while blocked on the tunnel or half closed.
pub(crate) async fn socket_error(socket: &TcpStream) -> io::Error {
    if let Err(error) = socket.ready(Interest::ERROR).await {
        return error;
    }
    match socket.take_error() {
        Ok(Some(error)) | Err(error) => error,
        // A read or write has taken the error and reports it.
        Ok(None) => std::future::pending().await,
    }
}

/// Resets the connection when dropped: a task that is cancelled, or panics, must not look like an end of file.
pub(super) struct AbortOnDrop {
    pub(super) socket: TcpStream,
    armed: bool,
}

impl AbortOnDrop {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, armed: true }
    }

    /// Lets the connection close as its applications closed it.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if self.armed {
            // Linger 0 makes close() send RST (tcp_disconnect in the kernel's tcp_close).
            let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
        }
    }
}
