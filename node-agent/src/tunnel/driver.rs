//! Drives one outbound connection: frames, keepalive, idle release.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::client::Connection;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::keepalive::{Keepalive, Lapse};
use super::pool::{Health, Pooled};
use super::{TunnelSettings, TunnelStats};

/// Time for GOAWAY and close_notify of a connection that nobody uses any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs until the connection is closed, lost, or idle, and answers whether it was idle. `leave` takes it out of the pool if it is still unused and
/// answers whether it did.
pub(super) async fn drive(
    mut connection: Connection<TlsStream<TcpStream>, Bytes>,
    address: SocketAddr,
    pooled: Weak<Pooled>,
    (health, stats): (Arc<Health>, Arc<TunnelStats>),
    cancel: CancellationToken,
    settings: Arc<TunnelSettings>,
    leave: impl Fn() -> bool + Send,
) -> bool {
    let mut keepalive = Keepalive::client(connection.ping_pong(), &settings);
    let mut idle_since = None;
    let mut settled = false;
    let mut doubted = Box::pin(health.doubted());
    let run = poll_fn(|cx| {
        if let Poll::Ready(end) = Pin::new(&mut connection).poll(cx) {
            if let Err(error) = end {
                tracing::debug!(%address, %error, "tunnel ended");
            }
            return Poll::Ready(false);
        }
        let in_use = pooled.upgrade().is_some_and(|p| p.in_use());
        idle_since = if in_use {
            None
        } else {
            idle_since.or_else(|| Some(Instant::now()))
        };
        while doubted.as_mut().poll(cx).is_ready() {
            doubted.set(health.doubted());
            keepalive.probe();
        }
        loop {
            let lapse = keepalive.poll(cx, idle_since);
            if !settled && keepalive.answered() {
                settled = true;
                if let Some(pooled) = pooled.upgrade() {
                    pooled.settle();
                }
            }
            let overdue = keepalive.is_overdue();
            if health.set_suspect(overdue) && overdue {
                tracing::debug!(%address, "tunnel is slow to answer PING; new streams go elsewhere");
                TunnelStats::count(&stats.connections_suspected);
            }
            match lapse {
                Poll::Pending => break,
                Poll::Ready(Lapse::Lost) => {
                    tracing::debug!(%address, "tunnel does not answer PING");
                    TunnelStats::count(&stats.connections_lost);
                    return Poll::Ready(false);
                }
                Poll::Ready(Lapse::Idle) if leave() => return Poll::Ready(true),
                // A stream came in between.
                Poll::Ready(Lapse::Idle) => idle_since = Some(Instant::now()),
            }
        }
        // A PING may have been queued.
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        Poll::Pending
    });
    let idle = tokio::select! {
        idle = run => idle,
        () = cancel.cancelled() => {
            if let Some(pooled) = pooled.upgrade() {
                pooled.drained();
            }
            false
        }
    };
    if idle {
        // Out of the pool and without handles h2 says GOAWAY and closes by itself.
        let _ = timeout(FAREWELL, connection).await;
    }
    idle
}
