//! Live connections per endpoint.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Locks that share the endpoints: the data plane's threads rarely meet.
const SHARDS: usize = 32;

/// Connections towards each endpoint that are open or being opened; an endpoint without any takes no memory.
#[derive(Debug)]
pub(super) struct Loads {
    hasher: RandomState,
    shards: [Mutex<HashMap<SocketAddr, u64>>; SHARDS],
}

impl Default for Loads {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Loads {
    pub(super) fn of(&self, endpoint: SocketAddr) -> u64 {
        self.shard(endpoint).get(&endpoint).copied().unwrap_or_default()
    }

    pub(super) fn count(loads: &Arc<Self>, endpoint: SocketAddr) -> Live {
        *loads.shard(endpoint).entry(endpoint).or_default() += 1;
        Live {
            loads: loads.clone(),
            endpoint,
        }
    }

    /// Endpoints with a connection.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| hold(shard).len()).sum()
    }

    fn shard(&self, endpoint: SocketAddr) -> MutexGuard<'_, HashMap<SocketAddr, u64>> {
        let index = (self.hasher.hash_one(endpoint) % SHARDS as u64) as usize;
        hold(&self.shards[index])
    }
}

fn hold(shard: &Mutex<HashMap<SocketAddr, u64>>) -> MutexGuard<'_, HashMap<SocketAddr, u64>> {
    // Nothing panics under it.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection that counts while this lives.
#[derive(Debug)]
pub(crate) struct Live {
    loads: Arc<Loads>,
    endpoint: SocketAddr,
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut shard = self.loads.shard(self.endpoint);
        if let Entry::Occupied(mut entry) = shard.entry(self.endpoint) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
        // A burst must not hold its memory for good.
        if shard.len() * 4 < shard.capacity() && shard.capacity() > 64 {
            shard.shrink_to_fit();
        }
    }
}
