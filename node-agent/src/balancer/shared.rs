//! The rows that the kernel's programs and the agent count in: which endpoint has which.

use crate::broker::EndpointLoads;
use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Who has which row.
#[derive(Debug)]
pub(super) struct Shared {
    rows: Option<Arc<EndpointLoads>>,
    /// Whether this agent is the one that counts in them.
    counts: AtomicBool,
    owners: Mutex<Owners>,
}

#[derive(Debug, Default)]
struct Owners {
    by_endpoint: HashMap<SocketAddr, u32>,
    free: Vec<u32>,
}

/// A row that was given to an endpoint, and the endpoints that lost theirs for it.
pub(super) struct Given {
    pub(super) row: u32,
    pub(super) freed: Vec<SocketAddr>,
}

impl Shared {
    pub(super) fn new(rows: Option<Arc<EndpointLoads>>) -> Self {
        Self {
            rows,
            counts: AtomicBool::new(false),
            owners: Mutex::default(),
        }
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        // Nothing panics under it.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that the kernel let pass and that count in the row.
    pub(super) fn kernel(&self, row: u32) -> u64 {
        match &self.rows {
            Some(rows) if row != 0 => rows.kernel(row),
            _ => 0,
        }
    }

    /// Tells the kernel how many connections the agent carries.
    pub(super) fn tell(&self, row: u32, live: u64) {
        if row != 0
            && self.counts.load(Ordering::Relaxed)
            && let Some(rows) = &self.rows
        {
            rows.set_agent(row, live);
        }
    }

    /// The row of an endpoint. Where none is free, those are that have no connection of the kernel's and are not `in_use`.
    pub(super) fn row(&self, endpoint: SocketAddr, in_use: impl FnOnce() -> HashSet<u32>) -> Option<Given> {
        let rows = self.rows.as_ref()?;
        let mut owners = self.owners();
        if let Some(row) = owners.by_endpoint.get(&endpoint) {
            return Some(Given {
                row: *row,
                freed: Vec::new(),
            });
        }
        let mut freed = Vec::new();
        if owners.free.is_empty() {
            let in_use = in_use();
            let idle = |row: u32| !in_use.contains(&row) && rows.kernel(row) == 0;
            let gone: Vec<_> = owners.by_endpoint.extract_if(|_, row| idle(*row)).collect();
            for (endpoint, row) in gone {
                rows.free(row);
                owners.free.push(row);
                freed.push(endpoint);
            }
        }
        let row = owners.free.pop()?;
        rows.assign(row, endpoint);
        owners.by_endpoint.insert(endpoint, row);
        Some(Given { row, freed })
    }

    /// Reads whose the rows are: agents before this one have left connections of the kernel's in them.
    pub(super) fn attach(&self) -> Vec<(u32, SocketAddr)> {
        let Some(rows) = &self.rows else {
            return Vec::new();
        };
        let mut owners = self.owners();
        *owners = Owners::default();
        let mut found = Vec::new();
        for row in rows.rows() {
            match rows.owner(row) {
                Some(endpoint) if owners.by_endpoint.insert(endpoint, row).is_none() => {
                    found.push((row, endpoint));
                }
                Some(_) => rows.free(row),
                None => owners.free.push(row),
            }
        }
        self.counts.store(true, Ordering::Relaxed);
        found
    }

    /// Counts no more.
    pub(super) fn detach(&self) {
        self.counts.store(false, Ordering::Relaxed);
    }
}
