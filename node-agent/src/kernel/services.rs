//! Typed handles of the maps of Services that the kernel resolves.

use super::{
    KernelError,
    maps::{Fill, absent_is_fine, count, in_map, lock, one},
    verdicts::all,
};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};
use std::{collections::HashSet, sync::Mutex};
use tramline_common::{
    map::name,
    service::{Endpoint, EndpointKey, MAX_ENDPOINTS, MAX_SERVICES, ServiceRow},
    verdict::VerdictKey,
};

/// The maps behind `tramline_common::service`. Each is behind its own lock, held for one system call or one walk.
pub(crate) struct ServiceMaps {
    services: Mutex<HashMap<MapData, VerdictKey, ServiceRow>>,
    endpoints: Mutex<HashMap<MapData, EndpointKey, Endpoint>>,
}

impl ServiceMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            services: Mutex::new(one(ebpf, name::SERVICES)?),
            endpoints: Mutex::new(one(ebpf, name::ENDPOINTS)?),
        })
    }

    /// Leaves a Service: its endpoints under a number that nothing leads to yet, then the row that leads there. What was
    /// there before goes last.
    ///
    /// # Errors
    /// Then nothing of it stays, nor of what was there before: who asked knows of neither from then on. Where that fails too
    /// (said by the log), [`Self::remove`] says so again.
    pub(crate) fn set(
        &self,
        key: VerdictKey,
        row: ServiceRow,
        endpoints: &[Endpoint],
    ) -> Result<(), KernelError> {
        let before = lock(&self.services).get(&key, 0).ok();
        let done = self
            .write(key, row, endpoints)
            .and_then(|()| before.map_or(Ok(()), |before| self.remove_endpoints(&before)));
        if done.is_err() {
            for gone in [self.remove(&key), self.remove_endpoints(&row)] {
                if let Err(error) = gone {
                    tracing::debug!(%error, "something stays of a Service that the kernel refused");
                }
            }
        }
        done
    }

    fn write(&self, key: VerdictKey, row: ServiceRow, endpoints: &[Endpoint]) -> Result<(), KernelError> {
        for (index, endpoint) in (0..).zip(endpoints) {
            lock(&self.endpoints)
                .insert(EndpointKey::new(row.row, index), endpoint, 0)
                .map_err(in_map(name::ENDPOINTS))?;
        }
        lock(&self.services)
            .insert(key, row, 0)
            .map_err(in_map(name::SERVICES))
    }

    /// Takes a Service back: first the row, so that nobody is led to what goes.
    pub(crate) fn remove(&self, key: &VerdictKey) -> Result<(), KernelError> {
        let Ok(row) = lock(&self.services).get(key, 0) else {
            return Ok(());
        };
        absent_is_fine(lock(&self.services).remove(key), name::SERVICES)?;
        self.remove_endpoints(&row)
    }

    fn remove_endpoints(&self, row: &ServiceRow) -> Result<(), KernelError> {
        for index in 0..row.endpoints {
            let key = EndpointKey::new(row.row, index);
            absent_is_fine(lock(&self.endpoints).remove(&key), name::ENDPOINTS)?;
        }
        Ok(())
    }

    /// Takes back the rows that `is_void`, and endpoints that no row leads to: an agent that was killed in between left them.
    pub(crate) fn remove_void(
        &self,
        is_void: impl Fn(&VerdictKey, &ServiceRow) -> bool,
    ) -> Result<(), KernelError> {
        let mut led_to = HashSet::new();
        for (key, row) in all(&self.services, MAX_SERVICES) {
            if is_void(&key, &row) {
                self.remove(&key)?;
            } else {
                led_to.insert(row.row);
            }
        }
        for (key, _) in all(&self.endpoints, MAX_ENDPOINTS) {
            if !led_to.contains(&key.row) {
                absent_is_fine(lock(&self.endpoints).remove(&key), name::ENDPOINTS)?;
            }
        }
        Ok(())
    }

    /// The row of a Service for a pod, current or not.
    pub(crate) fn get(&self, key: &VerdictKey) -> Option<ServiceRow> {
        lock(&self.services).get(key, 0).ok()
    }

    /// How full the maps are.
    pub(super) fn fill(&self) -> [Fill; 2] {
        let [(services, of_services), (endpoints, of_endpoints)] = Self::capacities();
        [
            Fill {
                map: services,
                entries: count(lock(&self.services).keys(), of_services),
                capacity: of_services,
            },
            Fill {
                map: endpoints,
                entries: count(lock(&self.endpoints).keys(), of_endpoints),
                capacity: of_endpoints,
            },
        ]
    }

    /// The names and capacities alone.
    pub(super) fn capacities() -> [(&'static str, usize); 2] {
        [(name::SERVICES, MAX_SERVICES), (name::ENDPOINTS, MAX_ENDPOINTS)]
    }
}
