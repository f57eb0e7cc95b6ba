//! The tunnels towards other agents, shared by the connections of one source workload to one destination.

mod attempt;
mod entry;
mod health;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;
use tramline_core::workload::WorkloadUid;

use self::entry::{Attempt, Entry, Granted};
pub(super) use self::entry::{Lease, Pooled};
pub(super) use self::health::Health;
use super::stats::Open;
use super::{ConnectRequest, Shown, TunnelError, TunnelSettings, TunnelStats, TunnelStream};

/// A stream that a closing connection did not take is tried on another connection this often.
const RETRIES: usize = 2;
/// So many connections that others began before a caller came may refuse it for trust; then that is its answer.
const EARLIER: usize = 8;
/// Time for connections to notice that the agent ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// What connections are shared by: never by two source workloads or two identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// The pod whose network namespace the tunnel's socket lives in.
    pub source_workload: WorkloadUid,
    /// Identity shown.
    pub source: SpiffeId,
    /// Identity demanded.
    pub destination: SpiffeId,
    /// The destination pod's address, port 15008.
    pub address: SocketAddr,
}

/// Outbound tunnels of one agent.
///
/// The map's lock is never held across a wait, so one dead destination delays nobody else.
pub struct Pool {
    settings: Arc<TunnelSettings>,
    stats: Arc<TunnelStats>,
    entries: Mutex<HashMap<PoolKey, Entry>>,
    ids: AtomicU64,
    draining: AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What a caller without a free place on a connection does.
enum Step {
    Use(Lease),
    Wait(u64, oneshot::Receiver<Granted>),
    Connect(u64, oneshot::Receiver<Granted>),
}

impl Pool {
    /// An empty pool.
    pub fn new(settings: TunnelSettings, stats: Arc<TunnelStats>) -> Arc<Self> {
        Arc::new(Self {
            settings: Arc::new(settings),
            stats,
            entries: Mutex::default(),
            ids: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Opens a stream to `request.authority` through the agent at `key.address`.
    ///
    /// `dial` is called if a new connection is needed, in the caller's task and at most once; the connection is then
    /// made by a task of its own, so that others who wait for it do not depend on this caller. `shown` is
    /// `key.source`'s certificate. Streams start on the connection until half of what was left of that certificate,
    /// or of the peer's, has passed, or until there is a newer one; the connection ends when the peer is not believed
    /// any more.
    ///
    /// # Errors
    /// Within `connect + tls + http2 + response` of the settings; callers who wait for one connection share its
    /// failure. But where one that was begun before the caller came is refused for trust, the caller goes on to the next or
    /// begins one of its own.
    pub async fn open(
        self: &Arc<Self>,
        key: &PoolKey,
        shown: Shown,
        dial: impl FnOnce() -> BoxFuture<'static, io::Result<TcpStream>> + Send,
        request: ConnectRequest,
    ) -> Result<TunnelStream, TunnelError> {
        if shown.expires <= SystemTime::now() {
            return Err(TunnelError::Expired {
                identity: key.source.clone(),
            });
        }
        let mut dial = Some(dial);
        let mut refused = None;
        // What began before this caller came may rest on the trust of before, at either end: that is no answer to it.
        let came = self.ids.load(Ordering::Relaxed);
        let (mut again, mut earlier) = (RETRIES, EARLIER);
        loop {
            let (id, lease) = loop {
                let (id, granted) = match self.step(key, dial.is_some()) {
                    None => return Err(refused.unwrap_or(TunnelError::Evicted)),
                    Some(step) => match step? {
                        Step::Use(lease) => break (lease.id(), lease),
                        Step::Wait(id, granted) => (id, granted),
                        Step::Connect(id, granted) => {
                            if let Some(dial) = dial.take() {
                                self.start(id, key.clone(), shown.clone(), dial());
                            }
                            (id, granted)
                        }
                    },
                };
                match granted.await {
                    Ok(Granted::Place(lease)) => break (id, lease),
                    Ok(Granted::Full) => {}
                    Ok(Granted::Failed(error)) if id < came && earlier > 0 && error.is_about_trust() => {
                        earlier -= 1;
                        refused = Some(error);
                    }
                    Ok(Granted::Failed(error)) => return Err(error),
                    Err(_) => return Err(TunnelError::Evicted),
                }
            };
            match self.request(lease, key.address, &request).await {
                Ok(stream) => return Ok(stream),
                Err((error, _)) if id < came && earlier > 0 && error.is_about_trust() => {
                    earlier -= 1;
                    refused = Some(error);
                }
                Err((error, true)) if again > 0 => {
                    again -= 1;
                    refused = Some(error);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Closes all tunnels of a workload that left the node, streams included.
    pub fn evict_source(&self, source: &WorkloadUid) {
        let evicted = self.take(|key| key.source_workload == *source);
        for connection in evicted.iter().flat_map(|(_, entry)| &entry.connections) {
            connection.cancel(Reason::Cancelled);
            TunnelStats::count(&self.stats.evicted);
        }
    }

    /// Closes all tunnels, streams included, whose destination is no longer what it was: `is_there` is asked whether
    /// the address still belongs to the identity.
    pub fn retain_destinations(&self, is_there: impl Fn(SocketAddr, &SpiffeId) -> bool) {
        for (key, entry) in self.take(|key| !is_there(key.address, &key.destination)) {
            for connection in &entry.connections {
                connection.cancel(Reason::UnknownWorkload);
                TunnelStats::count(&self.stats.evicted);
            }
            for waiter in entry.attempts.into_iter().flat_map(|attempt| attempt.waiters) {
                let _ = waiter.send(Granted::Failed(TunnelError::DestinationLeft {
                    address: key.address,
                    identity: key.destination.clone(),
                }));
            }
        }
    }

    fn take(&self, leaves: impl Fn(&PoolKey) -> bool) -> Vec<(PoolKey, Entry)> {
        self.entries().extract_if(|key, _| leaves(key)).collect()
    }

    /// Connections that may take streams, all keys together.
    pub fn connections(&self) -> usize {
        self.entries().values().map(|entry| entry.connections.len()).sum()
    }

    /// Keys with a connection or an attempt, for tests of leaks.
    pub fn keys(&self) -> usize {
        self.entries().len()
    }

    /// Refuses new streams, lets the open ones finish for at most `grace`, then cuts what is left.
    pub async fn drain(&self, grace: Duration) {
        self.draining.store(true, Ordering::SeqCst);
        let entries = std::mem::take(&mut *self.entries());
        for waiter in entries
            .into_values()
            .flat_map(|e| e.attempts)
            .flat_map(|a| a.waiters)
        {
            let _ = waiter.send(Granted::Failed(TunnelError::Draining));
        }
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            self.stop.cancel();
            let _ = timeout(FAREWELL, self.tasks.wait()).await;
        }
    }

    /// Finds a place, a connection being made, or room for a new one; `None` if only the last would do and the
    /// caller cannot dial any more.
    fn step(&self, key: &PoolKey, can_dial: bool) -> Option<Result<Step, TunnelError>> {
        let mut entries = self.entries();
        if self.draining.load(Ordering::SeqCst) {
            return Some(Err(TunnelError::Draining));
        }
        let entry = entries.entry(key.clone()).or_default();
        let step = if let Some(lease) = entry.place() {
            Some(Step::Use(lease))
        } else {
            let (sender, receiver) = oneshot::channel();
            if let Some(attempt) = entry.attempt_with_room(self.settings.max_streams_per_connection as usize)
            {
                attempt.waiters.push(sender);
                Some(Step::Wait(attempt.id, receiver))
            } else if can_dial {
                let id = self.ids.fetch_add(1, Ordering::Relaxed);
                entry.attempts.push(Attempt {
                    id,
                    waiters: vec![sender],
                });
                Some(Step::Connect(id, receiver))
            } else {
                None
            }
        };
        if entry.is_empty() {
            entries.remove(key);
        }
        step.map(Ok)
    }

    /// Asks for the stream; the flag says that it may be asked for again on another connection.
    async fn request(
        &self,
        lease: Lease,
        address: SocketAddr,
        request: &ConnectRequest,
    ) -> Result<TunnelStream, (TunnelError, bool)> {
        let authority = request.authority;
        let http = request.to_http().map_err(|error| (error, false))?;
        let broken = |source: h2::Error| {
            let unprocessed = source.is_go_away() || source.reason() == Some(h2::Reason::REFUSED_STREAM);
            (
                TunnelError::Http2 {
                    address,
                    source: Arc::new(source),
                },
                unprocessed,
            )
        };
        let unsent = |source: h2::Error| {
            (
                TunnelError::Http2 {
                    address,
                    source: Arc::new(source),
                },
                true,
            )
        };
        let believed = || {
            lease
                .is_believed()
                .map_err(|why| (TunnelError::Untrusted { address, why }, true))
        };
        let after = self.settings.response;
        let silent = async {
            sleep(self.settings.doubt).await;
            lease.health().doubt();
            lease.health().suspected().await;
        };
        let exchange = async {
            let mut sender = lease.sender().ready().await.map_err(unsent)?;
            // Trust may have changed while the connection was made or waited for.
            believed()?;
            let (response, send) = sender.send_request(http, false).map_err(unsent)?;
            drop(sender);
            Ok((response.await.map_err(broken)?, send))
        };
        // A caller that gives up on a silent peer resets the stream, so that no application keeps half a connection
        // should the peer come back; no byte has been sent on it, so that another connection may be tried.
        let answered = tokio::select! {
            answered = timeout(after, exchange) => answered,
            () = silent => {
                let after = self.settings.suspect;
                return Err((TunnelError::Silent { address, authority, after }, true));
            }
        };
        let (response, send) = answered.map_err(|_| {
            (
                TunnelError::ResponseTimeout {
                    address,
                    authority,
                    after,
                },
                false,
            )
        })??;
        if !response.status().is_success() {
            let reason = super::request::reason(response.status(), response.headers());
            return Err((
                TunnelError::Refused {
                    address,
                    authority,
                    status: response.status(),
                    reason,
                },
                false,
            ));
        }
        let open = Open::new(&self.stats, |stats| &stats.streams_open);
        Ok(TunnelStream::leased(send, response.into_body(), lease, open))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PoolKey, Entry>> {
        // Nothing panics under this lock; if something did, the map is whole all the same.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
