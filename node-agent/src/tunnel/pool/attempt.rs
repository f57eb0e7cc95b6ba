//! Making one connection for everybody who waits for it.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tramline_core::reason::Reason;

use super::entry::{Granted, Lease, Life, Pooled, UNSETTLED_STREAMS};
use super::health::Health;
use super::{Pool, PoolKey};
use crate::identify::{PeerRole, TrustGuard};
use crate::tunnel::connect::{Connected, connect};
use crate::tunnel::driver::drive;
use crate::tunnel::stats::{Open, TunnelStats};
use crate::tunnel::{Shown, TunnelError};

/// Takes the attempt out of the pool however its task ends; whoever still waits then gets an error.
struct Registered {
    pool: Arc<Pool>,
    key: PoolKey,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut entries = self.pool.entries();
        if let Some(entry) = entries.get_mut(&self.key) {
            entry.attempts.retain(|attempt| attempt.id != self.id);
            if entry.is_empty() {
                entries.remove(&self.key);
            }
        }
    }
}

impl Pool {
    /// Makes the connection of attempt `id`, which is in the map already.
    pub(super) fn start(
        self: &Arc<Self>,
        id: u64,
        key: PoolKey,
        shown: Shown,
        dial: BoxFuture<'static, io::Result<TcpStream>>,
    ) {
        let registered = Registered {
            pool: Arc::clone(self),
            key,
            id,
        };
        let stop = self.stop.clone();
        // Before the handshake: what changes after it must be noticed.
        let guard = shown.trust.guard();
        let tls = shown.tls.clone();
        self.tasks.spawn(async move {
            let pool = &registered.pool;
            TunnelStats::count(&pool.stats.dials);
            let made = tokio::select! {
                made = Box::pin(connect(&registered.key, tls, dial, &pool.settings, &pool.stats)) => made,
                () = stop.cancelled() => Err(TunnelError::Draining),
            };
            match made {
                Ok(connected) => pool.established(&registered, connected, &shown, guard).await,
                Err(error) => pool.grant(&registered, &Err(error)),
            }
        });
    }

    async fn established(
        self: &Arc<Self>,
        registered: &Registered,
        connected: Connected,
        shown: &Shown,
        guard: TrustGuard,
    ) {
        let Connected {
            sender,
            connection,
            peer,
        } = connected;
        let (key, id) = (&registered.key, registered.id);
        let limit = self.settings.max_streams_per_connection as usize;
        let health = Arc::new(Health::new());
        let cancel = self.stop.child_token();
        let life = Life::new(
            SystemTime::now(),
            shown.expires.min(peer.not_after),
            &shown.superseded,
        );
        let believed = Arc::new(guard.over(peer.chain, PeerRole::Server));
        let pooled = Arc::new(Pooled::new(
            id,
            sender,
            life,
            limit,
            (health.clone(), believed.clone()),
            cancel.clone(),
        ));
        let open = Open::new(&self.stats, |stats| &stats.connections_open_client);
        let leaver = (Arc::downgrade(self), key.clone());
        let leave = move |unused_only| {
            leaver
                .0
                .upgrade()
                .is_none_or(|pool| pool.forget(&leaver.1, id, unused_only))
        };
        let weak = Arc::downgrade(&pooled);
        let address = key.address;
        let driven = cancel.clone();
        let settings = Arc::clone(&self.settings);
        let stats = Arc::clone(&self.stats);
        let watched = (health, Arc::clone(&self.stats));
        self.tasks.spawn(async move {
            let cut = weak.clone();
            let driving = drive(connection, address, weak, watched, driven, settings, || {
                leave(true)
            });
            let idle = tokio::select! {
                idle = driving => idle,
                why = believed.lost() => {
                    tracing::warn!(%address, peer = %peer.identity, %why, "cut a tunnel");
                    if let Some(pooled) = cut.upgrade() {
                        pooled.cancel(Reason::PeerUntrusted);
                    }
                    false
                }
            };
            if idle {
                TunnelStats::count(&stats.released);
            }
            // Also for callers that wait for the peer's settings: there will be none.
            cancel.cancel();
            leave(false);
            drop(open);
        });
        // Many callers at once: learn first how many the peer takes. Bounded by the first PING's deadline.
        if self.waiters(registered) > UNSETTLED_STREAMS {
            tokio::select! {
                () = pooled.settled() => {}
                () = pooled.cancelled() => {
                    let error = pooled.why_unsettled(key.address, self.settings.http2);
                    self.grant(registered, &Err(error));
                    return;
                }
            }
        }
        self.grant(registered, &Ok(pooled));
    }

    fn waiters(&self, registered: &Registered) -> usize {
        let entries = self.entries();
        let attempts = entries
            .get(&registered.key)
            .map(|entry| entry.attempts.as_slice())
            .unwrap_or_default();
        attempts
            .iter()
            .find(|a| a.id == registered.id)
            .map_or(0, |a| a.waiters.len())
    }

    /// Ends the attempt: the connection goes into the pool and its places to those who wait, or all get the error.
    fn grant(&self, registered: &Registered, made: &Result<Arc<Pooled>, TunnelError>) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&registered.key) else {
            return;
        };
        let Some(at) = entry.attempts.iter().position(|a| a.id == registered.id) else {
            return;
        };
        let attempt = entry.attempts.swap_remove(at);
        for waiter in attempt.waiters {
            let granted = match made {
                Ok(pooled) => Lease::take(pooled).map_or(Granted::Full, Granted::Place),
                Err(error) => Granted::Failed(error.clone()),
            };
            // A caller that gave up returns its place by the drop.
            let _ = waiter.send(granted);
        }
        if let Ok(pooled) = made {
            entry.connections.push(Arc::clone(pooled));
        }
        if entry.is_empty() {
            entries.remove(&registered.key);
        }
    }

    /// Takes connection `id` out of the pool, with `unused_only` only if no stream has a place on it; answers
    /// whether it is out.
    fn forget(&self, key: &PoolKey, id: u64, unused_only: bool) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return true;
        };
        // Places are taken under this lock.
        if unused_only && entry.connections.iter().any(|c| c.id == id && c.in_use()) {
            return false;
        }
        entry.connections.retain(|c| c.id != id);
        if entry.is_empty() {
            entries.remove(key);
        }
        true
    }
}
