//! The connections and attempts of one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::SendRequest;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::tunnel::TunnelError;

/// Streams on a connection whose peer has not told its limit yet; one that allows fewer makes the rest wait.
pub(super) const UNSETTLED_STREAMS: usize = 16;

/// What a waiting caller gets.
#[derive(Debug)]
pub(super) enum Granted {
    /// A place on the connection that was made.
    Place(Lease),
    /// The connection takes fewer streams than there were callers: look again.
    Full,
    /// The connection failed.
    Failed(TunnelError),
}

/// A connection being made, and who waits for it, the one who started it first.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) id: u64,
    pub(super) waiters: Vec<oneshot::Sender<Granted>>,
}

/// The connections and attempts of one key; not in the map when it has neither.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) connections: Vec<Arc<Pooled>>,
    pub(super) attempts: Vec<Attempt>,
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.attempts.is_empty()
    }

    /// A place on the first connection with room, so that the last ones become idle; forgets those that take no
    /// streams any more. Their streams go on.
    pub(super) fn place(&mut self) -> Option<Lease> {
        let now = SystemTime::now();
        self.connections
            .retain(|connection| connection.takes_streams(now));
        self.connections.iter().find_map(Lease::take)
    }

    /// An attempt whose connection will have room for one more.
    pub(super) fn attempt_with_room(&mut self, limit: usize) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find_map(|attempt| {
            attempt.waiters.retain(|waiter| !waiter.is_closed());
            (attempt.waiters.len() < limit).then_some(attempt)
        })
    }
}

/// One connection.
#[derive(Debug)]
pub(in crate::tunnel) struct Pooled {
    pub(super) id: u64,
    sender: SendRequest<Bytes>,
    in_use: AtomicUsize,
    settled: AtomicBool,
    settling: Notify,
    expires: SystemTime,
    limit: usize,
    cancel: CancellationToken,
}

impl Pooled {
    pub(super) fn new(
        id: u64,
        sender: SendRequest<Bytes>,
        expires: SystemTime,
        limit: usize,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            id,
            sender,
            in_use: AtomicUsize::new(0),
            settled: AtomicBool::new(false),
            settling: Notify::new(),
            expires,
            limit,
            cancel,
        }
    }

    /// Whether any stream has a place on it.
    pub(in crate::tunnel) fn in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire) > 0
    }

    /// The peer's SETTINGS have arrived.
    pub(in crate::tunnel) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.settling.notify_waiters();
    }

    /// Resolves once the peer's SETTINGS have arrived.
    pub(super) async fn settled(&self) {
        let mut settling = std::pin::pin!(self.settling.notified());
        settling.as_mut().enable();
        if !self.settled.load(Ordering::Acquire) {
            settling.await;
        }
    }

    /// Ends the connection with its streams.
    pub(super) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Resolves when the connection has ended or is to end.
    pub(super) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    fn takes_streams(&self, now: SystemTime) -> bool {
        // Fails after GOAWAY and when the connection is lost.
        let alive = !matches!(self.sender.clone().ready().now_or_never(), Some(Err(_)));
        alive && now < self.expires && !self.cancel.is_cancelled()
    }

    fn capacity(&self) -> usize {
        if self.settled.load(Ordering::Acquire) {
            // A peer that allows none makes its callers time out, which names it.
            self.sender.current_max_send_streams().clamp(1, self.limit.max(1))
        } else {
            UNSETTLED_STREAMS.min(self.limit.max(1))
        }
    }
}

/// A place for one stream on a connection, given back when dropped.
#[derive(Debug)]
pub(in crate::tunnel) struct Lease(Arc<Pooled>);

impl Lease {
    /// Takes a place if there is one.
    pub(super) fn take(connection: &Arc<Pooled>) -> Option<Self> {
        let capacity = connection.capacity();
        connection
            .in_use
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < capacity).then_some(n + 1)
            })
            .ok()
            .map(|_| Self(Arc::clone(connection)))
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.0.sender.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::AcqRel);
    }
}
