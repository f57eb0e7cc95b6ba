//! The connections and attempts of one key.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::SendRequest;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tramline_core::reason::Reason;

use super::health::Health;
use crate::identify::Believed;
use crate::tunnel::TunnelError;
use crate::tunnel::cut::Cut;

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
    /// streams any more. Their streams go on. One whose peer is silent at present is passed over.
    pub(super) fn place(&mut self) -> Option<Lease> {
        let now = SystemTime::now();
        self.connections
            .retain(|connection| connection.takes_streams(now));
        self.connections
            .iter()
            .filter(|connection| !connection.health.is_suspect())
            .find_map(Lease::take)
    }

    /// An attempt whose connection will have room for one more.
    pub(super) fn attempt_with_room(&mut self, limit: usize) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find_map(|attempt| {
            attempt.waiters.retain(|waiter| !waiter.is_closed());
            (attempt.waiters.len() < limit).then_some(attempt)
        })
    }
}

/// How long a connection takes new streams: until half of what was left of the shorter certificate when it was made,
/// or until this side has a newer one. The other half is for the streams that it has.
#[derive(Debug)]
pub(super) struct Life {
    retires: SystemTime,
    superseded: CancellationToken,
}

impl Life {
    pub(super) fn new(now: SystemTime, expires: SystemTime, superseded: &CancellationToken) -> Self {
        let left = expires.duration_since(now).unwrap_or_default();
        Self {
            retires: now + left / 2,
            superseded: superseded.clone(),
        }
    }

    fn takes_streams(&self, now: SystemTime) -> bool {
        now < self.retires && !self.superseded.is_cancelled()
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
    life: Life,
    limit: usize,
    health: Arc<Health>,
    believed: Arc<Believed>,
    cut: Cut,
    cancel: CancellationToken,
}

impl Pooled {
    pub(super) fn new(
        id: u64,
        sender: SendRequest<Bytes>,
        life: Life,
        limit: usize,
        (health, believed): (Arc<Health>, Arc<Believed>),
        cancel: CancellationToken,
    ) -> Self {
        Self {
            id,
            sender,
            in_use: AtomicUsize::new(0),
            settled: AtomicBool::new(false),
            settling: Notify::new(),
            life,
            limit,
            health,
            believed,
            cut: Cut::default(),
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

    /// Ends the connection with its streams, for a reason that they will name.
    pub(super) fn cancel(&self, reason: Reason) {
        self.cut.because(reason);
        self.cancel.cancel();
    }

    /// The connection ends with the agent, unless it was given another reason.
    pub(in crate::tunnel) fn drained(&self) {
        self.cut.because(Reason::AgentDraining);
    }

    /// Resolves when the connection has ended or is to end.
    pub(super) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Why it ended, or is to end, before the peer's SETTINGS had come within `after`.
    pub(super) fn why_unsettled(&self, address: SocketAddr, after: Duration) -> TunnelError {
        if let Err(why) = self.believed.now() {
            return TunnelError::Untrusted { address, why };
        }
        match self.sender.clone().ready().now_or_never() {
            Some(Err(source)) => TunnelError::Http2 {
                address,
                source: Arc::new(source),
            },
            _ => TunnelError::Http2Timeout { address, after },
        }
    }

    fn takes_streams(&self, now: SystemTime) -> bool {
        // Fails after GOAWAY and when the connection is lost.
        let alive = !matches!(self.sender.clone().ready().now_or_never(), Some(Err(_)));
        alive && self.life.takes_streams(now) && !self.cancel.is_cancelled() && self.believed.now().is_ok()
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

    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    /// Of the connection: the order in which they were begun.
    pub(super) fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether the peer is believed at this moment; the reason, if not.
    pub(super) fn is_believed(&self) -> Result<(), Arc<str>> {
        self.0.believed.now()
    }

    /// Why the connection was ended, for its streams.
    pub(in crate::tunnel) fn cut(&self) -> Cut {
        self.0.cut.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::AcqRel);
    }
}
