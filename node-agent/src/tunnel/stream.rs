//! One application connection's stream in a tunnel.

use std::fmt;

use bytes::Bytes;
use h2::{Reason as ResetCode, RecvStream, SendStream};

use super::pool::Lease;
use super::stats::Open;

/// One open stream: bytes both ways, half-close, reset.
///
/// Dropped before both directions ended it resets the stream with INTERNAL_ERROR: ztunnel takes NO_ERROR and CANCEL
/// for an end of file, and an application must not take a torn connection for a complete one.
pub struct TunnelStream {
    pub(super) send: SendStream<Bytes>,
    pub(super) recv: RecvStream,
    /// What the stream's end means to the peer is settled; nothing is left to reset.
    pub(super) settled: bool,
    /// The place on a pooled connection, on the client's side.
    _lease: Option<Lease>,
    _open: Open,
}

impl TunnelStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream, lease: Option<Lease>, open: Open) -> Self {
        Self {
            send,
            recv,
            settled: false,
            _lease: lease,
            _open: open,
        }
    }

    /// Resets the stream, so that the application behind the other agent sees a reset.
    pub fn reset(mut self) {
        self.abort();
    }

    pub(super) fn abort(&mut self) {
        if !self.settled {
            self.settled = true;
            self.send.send_reset(ResetCode::INTERNAL_ERROR);
        }
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.abort();
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream")
            .field("id", &self.send.stream_id())
            .finish_non_exhaustive()
    }
}
