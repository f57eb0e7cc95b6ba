//! One application connection's stream in a tunnel.

use std::fmt;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tramline_core::reason::Reason;

use super::buffers::Held;
use super::cut::Cut;
use super::pool::Lease;
use super::reset::ResetWith;
use super::stats::Open;

/// One open stream: bytes both ways, half-close, reset.
///
/// Dropped before both directions ended it resets the stream: an application must not take a torn connection for a
/// complete one.
pub struct TunnelStream {
    pub(super) send: SendStream<Bytes>,
    pub(super) recv: RecvStream,
    /// What the stream's end means to the peer is settled; nothing is left to reset.
    pub(super) settled: bool,
    reset_with: ResetWith,
    /// The place on a pooled connection, on the client's side.
    _lease: Option<Lease>,
    /// Why the connection ended, once it has.
    cut: Cut,
    open: Open,
}

impl TunnelStream {
    /// On the client's side, with its place on the connection.
    pub(super) fn leased(send: SendStream<Bytes>, recv: RecvStream, lease: Lease, open: Open) -> Self {
        let mut stream = Self::accepted(send, recv, lease.cut(), open);
        stream._lease = Some(lease);
        stream
    }

    /// On the server's side.
    pub(super) fn accepted(send: SendStream<Bytes>, recv: RecvStream, cut: Cut, open: Open) -> Self {
        Self {
            send,
            recv,
            settled: false,
            reset_with: ResetWith::default(),
            _lease: None,
            cut,
            open,
        }
    }

    /// Where whoever cuts the stream leaves the reason for the peer; outlives a relay that owns the stream.
    pub fn reset_with(&self) -> ResetWith {
        self.reset_with.clone()
    }

    /// What this stream holds of the agent's buffers: nothing yet.
    pub(super) fn held(&self) -> Held {
        Held::new(self.open.stats().clone())
    }

    /// Why the stream ended, given that its connection has.
    pub(super) fn cut_reason(&self) -> Reason {
        self.cut.reason()
    }

    /// Resets the stream, so that the application behind the other agent sees a reset.
    pub fn reset(mut self) {
        self.abort();
    }

    pub(super) fn abort(&mut self) {
        if !self.settled {
            self.settled = true;
            self.send.send_reset(self.reset_with.code());
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
