//! Live connections per endpoint.

use super::shared::Shared;
use crate::broker::EndpointLoads;
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
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
    shards: [Mutex<HashMap<SocketAddr, Load>>; SHARDS],
    shared: Shared,
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
struct Load {
    /// Connections that this agent carries.
    live: u64,
    /// The row in which the kernel counts its own, and reads ours; zero for none.
    row: u32,
}

impl Loads {
    pub(super) fn new(rows: Option<Arc<EndpointLoads>>) -> Self {
        let loads = Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            shared: Shared::new(rows),
        };
        loads.attach();
        loads
    }

    /// Connections to an endpoint, the kernel's among them.
    pub(super) fn of(&self, endpoint: SocketAddr) -> u64 {
        let (live, row) = match self.shard(endpoint).get(&endpoint) {
            Some(load) => (load.live, load.row),
            None => return 0,
        };
        live + self.shared.kernel(row)
    }

    pub(super) fn count(loads: &Arc<Self>, endpoint: SocketAddr) -> Live {
        let mut shard = loads.shard(endpoint);
        let load = shard.entry(endpoint).or_default();
        load.live += 1;
        loads.shared.tell(load.row, load.live);
        drop(shard);
        Live {
            loads: loads.clone(),
            endpoint,
        }
    }

    /// Endpoints of which anything is known.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| hold(shard).len()).sum()
    }

    /// The row in which the kernel counts connections to an endpoint; `None` where there is no room. `in_use` names the rows
    /// that must stay.
    pub(super) fn row(&self, endpoint: SocketAddr, in_use: impl FnOnce() -> HashSet<u32>) -> Option<u32> {
        let given = self.shared.row(endpoint, in_use)?;
        for freed in given.freed {
            let mut shard = self.shard(freed);
            if let Entry::Occupied(mut entry) = shard.entry(freed) {
                entry.get_mut().row = 0;
                if entry.get().live == 0 {
                    entry.remove();
                }
            }
        }
        let mut shard = self.shard(endpoint);
        let load = shard.entry(endpoint).or_default();
        load.row = given.row;
        self.shared.tell(load.row, load.live);
        Some(given.row)
    }

    /// Reads whose the rows are, and counts in them from now on.
    pub(super) fn attach(&self) {
        for shard in &self.shards {
            for load in hold(shard).values_mut() {
                load.row = 0;
            }
        }
        for (row, endpoint) in self.shared.attach() {
            let mut shard = self.shard(endpoint);
            let load = shard.entry(endpoint).or_default();
            load.row = row;
            self.shared.tell(row, load.live);
        }
    }

    /// Leaves the rows to another agent.
    pub(super) fn detach(&self) {
        self.shared.detach();
    }

    fn shard(&self, endpoint: SocketAddr) -> MutexGuard<'_, HashMap<SocketAddr, Load>> {
        let index = (self.hasher.hash_one(endpoint) % SHARDS as u64) as usize;
        hold(&self.shards[index])
    }
}

fn hold(shard: &Mutex<HashMap<SocketAddr, Load>>) -> MutexGuard<'_, HashMap<SocketAddr, Load>> {
    // Nothing panics under it.
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection that counts while this lives.
#[derive(Debug)]
pub(crate) struct Live {
    loads: Arc<Loads>,
    endpoint: SocketAddr,
}

impl Live {
    /// The endpoint that it leads to.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        self.endpoint
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut shard = self.loads.shard(self.endpoint);
        if let Entry::Occupied(mut entry) = shard.entry(self.endpoint) {
            let load = entry.get_mut();
            load.live -= 1;
            self.loads.shared.tell(load.row, load.live);
            if load.live == 0 && load.row == 0 {
                entry.remove();
            }
        }
        // A burst must not hold its memory for good.
        if shard.len() * 4 < shard.capacity() && shard.capacity() > 64 {
            shard.shrink_to_fit();
        }
    }
}
