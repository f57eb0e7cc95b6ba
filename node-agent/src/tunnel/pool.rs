//! The tunnels towards other agents, shared by the connections of one source workload to one destination.

mod attempt;
mod entry;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tramline_core::identity::SpiffeId;
use tramline_core::workload::WorkloadUid;

use self::entry::{Attempt, Entry, Granted};
pub(super) use self::entry::{Lease, Pooled};
use super::stats::Open;
use super::{ConnectRequest, TunnelError, TunnelSettings, TunnelStats, TunnelStream};

/// A stream that a closing connection did not take is tried on another connection this often.
const RETRIES: usize = 2;
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
    Wait(oneshot::Receiver<Granted>),
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
    /// made by a task of its own, so that others who wait for it do not depend on this caller. `tls` shows
    /// `key.source`'s certificate, and no stream starts on the connection once `expires`, or the peer's certificate,
    /// has passed.
    ///
    /// # Errors
    /// Within `connect + tls + http2 + response` of the settings; callers who wait for one connection share its
    /// failure.
    pub async fn open(
        self: &Arc<Self>,
        key: &PoolKey,
        tls: Arc<rustls::ClientConfig>,
        expires: SystemTime,
        dial: impl FnOnce() -> BoxFuture<'static, io::Result<TcpStream>> + Send,
        request: ConnectRequest,
    ) -> Result<TunnelStream, TunnelError> {
        if expires <= SystemTime::now() {
            return Err(TunnelError::Expired {
                identity: key.source.clone(),
            });
        }
        let mut dial = Some(dial);
        let mut refused = None;
        for _ in 0..=RETRIES {
            let lease = loop {
                let step = match self.step(key, dial.is_some()) {
                    Some(step) => step?,
                    None => return Err(refused.unwrap_or(TunnelError::Evicted)),
                };
                let granted = match step {
                    Step::Use(lease) => break lease,
                    Step::Wait(granted) => granted,
                    Step::Connect(id, granted) => {
                        if let Some(dial) = dial.take() {
                            self.start(id, key.clone(), Arc::clone(&tls), expires, dial());
                        }
                        granted
                    }
                };
                match granted.await {
                    Ok(Granted::Place(lease)) => break lease,
                    Ok(Granted::Full) => {}
                    Ok(Granted::Failed(error)) => return Err(error),
                    Err(_) => return Err(TunnelError::Evicted),
                }
            };
            match self.request(lease, key.address, &request).await {
                Err((error, true)) => refused = Some(error),
                Err((error, false)) => return Err(error),
                Ok(stream) => return Ok(stream),
            }
        }
        Err(refused.unwrap_or(TunnelError::Evicted))
    }

    /// Closes all tunnels of a workload that left the node, streams included.
    pub fn evict_source(&self, source: &WorkloadUid) {
        let mut evicted = Vec::new();
        self.entries().retain(|key, entry| {
            let leaves = key.source_workload == *source;
            if leaves {
                evicted.push(std::mem::take(entry));
            }
            !leaves
        });
        for connection in evicted.iter().flat_map(|entry| &entry.connections) {
            connection.cancel();
        }
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
            if let Some(attempt) = entry.attempt_with_room(self.settings.max_streams_per_connection) {
                attempt.waiters.push(sender);
                Some(Step::Wait(receiver))
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

    /// Asks for the stream; the flag says that the peer certainly did not process the request.
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
        let after = self.settings.response;
        let exchange = async {
            let mut sender = lease.sender().ready().await.map_err(unsent)?;
            let (response, send) = sender.send_request(http, false).map_err(unsent)?;
            drop(sender);
            Ok((response.await.map_err(broken)?, send))
        };
        let (response, send) = timeout(after, exchange).await.map_err(|_| {
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
            let reason = super::request::reason(response.headers());
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
        Ok(TunnelStream::new(send, response.into_body(), Some(lease), open))
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<PoolKey, Entry>> {
        // Nothing panics under this lock; if something did, the map is whole all the same.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
