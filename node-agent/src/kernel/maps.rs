//! Typed handles of the maps.

use super::{KernelError, loads::EndpointLoads, services::ServiceMaps, verdicts::VerdictMaps};
use aya::{
    Ebpf, Pod as Plain,
    maps::{
        HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage, SockHash, lpm_trie::Key,
    },
};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tramline_common::{
    Address, PodId,
    counter::Counter,
    map::{Flow, FlowKey, ListenerKey, MAX_PODS, Owned, Pod, PodAddress, PodPort, RangeData, name},
};

/// `BPF_NOEXIST` of uapi `linux/bpf.h`.
pub(super) const BPF_NOEXIST: u64 = 1;

/// All maps that the agent reads or writes. Each is behind its own lock, held for one system call.
pub(crate) struct Maps {
    pods: Mutex<HashMap<MapData, PodId, Pod>>,
    addresses: Mutex<HashMap<MapData, PodAddress, u32>>,
    local_pods: Mutex<HashMap<MapData, Address, PodId>>,
    excluded_ports: Mutex<HashMap<MapData, PodPort, u32>>,
    excluded_ranges: Mutex<LpmTrie<MapData, RangeData, u64>>,
    listeners: Mutex<SockHash<MapData, ListenerKey>>,
    plaintext: Mutex<HashMap<MapData, PodPort, u32>>,
    pub(super) listening: Mutex<HashMap<MapData, PodPort, u64>>,
    /// Rows of it that this agent could not write.
    pub(super) listening_refused: AtomicU64,
    registry: Mutex<HashMap<MapData, FlowKey, Flow>>,
    owned: Mutex<SkStorage<MapData, Owned>>,
    /// What is written on sockets: on the agent's own, and on those that dial.
    storages: [OwnedFd; 2],
    counters: Mutex<PerCpuArray<MapData, u64>>,
    events: Mutex<Option<RingBuf<MapData>>>,
    /// Those of verdicts.
    pub(crate) verdicts: VerdictMaps,
    /// Those of Services.
    pub(crate) services: ServiceMaps,
    /// How busy their endpoints are.
    pub(crate) loads: Arc<EndpointLoads>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries it can take.
    pub capacity: usize,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let storages = [descriptor(ebpf, name::OWNED)?, descriptor(ebpf, name::PICKED)?];
        Ok(Self {
            storages,
            pods: Mutex::new(one(ebpf, name::PODS)?),
            addresses: Mutex::new(one(ebpf, name::POD_ADDRESSES)?),
            local_pods: Mutex::new(one(ebpf, name::LOCAL_PODS)?),
            excluded_ports: Mutex::new(one(ebpf, name::EXCLUDED_PORTS)?),
            excluded_ranges: Mutex::new(one(ebpf, name::EXCLUDED_RANGES)?),
            listeners: Mutex::new(one(ebpf, name::LISTENERS)?),
            plaintext: Mutex::new(one(ebpf, name::PLAINTEXT)?),
            listening: Mutex::new(one(ebpf, name::LISTENING)?),
            listening_refused: AtomicU64::new(0),
            registry: Mutex::new(one(ebpf, name::REGISTRY)?),
            owned: Mutex::new(one(ebpf, name::OWNED)?),
            counters: Mutex::new(one(ebpf, name::COUNTERS)?),
            events: Mutex::new(Some(one(ebpf, name::EVENTS)?)),
            verdicts: VerdictMaps::take(ebpf)?,
            services: ServiceMaps::take(ebpf)?,
            loads: Arc::new(EndpointLoads::take(ebpf)?),
        })
    }

    pub(crate) fn insert_pod(&self, pod: PodId, value: Pod) -> Result<(), KernelError> {
        lock(&self.pods).insert(pod, value, 0).map_err(in_map(name::PODS))
    }

    /// Has a pod's connects captured, unless they are.
    pub(crate) fn insert_pod_if_absent(&self, pod: PodId, value: Pod) -> Result<(), KernelError> {
        unless_there(lock(&self.pods).insert(pod, value, BPF_NOEXIST), name::PODS)
    }

    pub(crate) fn remove_pod(&self, pod: PodId) -> Result<(), KernelError> {
        absent_is_fine(lock(&self.pods).remove(&pod), name::PODS)
    }

    /// Pods whose connects are captured.
    pub(crate) fn captured(&self) -> BTreeSet<PodId> {
        keys(&self.pods, MAX_PODS)
    }

    pub(crate) fn set_listener(&self, key: ListenerKey, socket: &impl AsRawFd) -> Result<(), KernelError> {
        lock(&self.listeners)
            .insert(key, socket.as_raw_fd(), 0)
            .map_err(in_map(name::LISTENERS))
    }

    pub(crate) fn remove_listener(&self, key: ListenerKey) -> Result<(), KernelError> {
        absent_is_fine(lock(&self.listeners).remove(&key), name::LISTENERS)
    }

    /// Whether the address is one of the pod's.
    pub(crate) fn is_pod_address(&self, pod: PodId, address: IpAddr) -> bool {
        let address = Address::from(address);
        lock(&self.addresses)
            .get(&PodAddress::new(pod, address), 0)
            .is_ok()
    }

    /// Whether the registry holds the flow.
    pub(crate) fn is_registered(&self, key: &FlowKey) -> bool {
        lock(&self.registry).get(key, 0).is_ok()
    }

    /// Writes on a socket whose it is.
    pub(crate) fn own(&self, socket: &impl AsRawFd, owned: Owned) -> Result<(), KernelError> {
        lock(&self.owned)
            .insert(socket, owned, 0)
            .map_err(in_map(name::OWNED))
    }

    /// The storages that sockets have which the agent opened, or a pod dialled; one that was accepted has none of them.
    pub(crate) fn storages(&self) -> [BorrowedFd<'_>; 2] {
        self.storages.each_ref().map(AsFd::as_fd)
    }

    /// Makes the pod's addresses in the map these.
    pub(crate) fn set_addresses(&self, pod: PodId, wanted: &[PodAddress]) -> Result<(), KernelError> {
        let rows: Vec<_> = wanted.iter().map(|key| (*key, 1)).collect();
        replace(&self.addresses, name::POD_ADDRESSES, |key| key.pod == pod, &rows)?;
        let mut local = lock(&self.local_pods);
        for row in wanted {
            local
                .insert(row.address, pod, 0)
                .map_err(in_map(name::LOCAL_PODS))?;
        }
        let stale: Vec<Address> = local
            .iter()
            .filter_map(Result::ok)
            .filter(|(address, owner)| *owner == pod && !wanted.iter().any(|row| row.address == *address))
            .map(|(address, _)| address)
            .collect();
        for address in &stale {
            absent_is_fine(local.remove(address), name::LOCAL_PODS)?;
        }
        Ok(())
    }

    /// Makes the pod's excluded ports in the map these.
    pub(crate) fn set_excluded_ports(&self, pod: PodId, wanted: &[PodPort]) -> Result<(), KernelError> {
        let rows: Vec<_> = wanted.iter().map(|key| (*key, 1)).collect();
        replace(
            &self.excluded_ports,
            name::EXCLUDED_PORTS,
            |key| key.pod == pod,
            &rows,
        )
    }

    /// Makes the pod's plaintext rows in the map these.
    pub(crate) fn set_plaintext(&self, pod: PodId, wanted: &[(PodPort, u32)]) -> Result<(), KernelError> {
        replace(&self.plaintext, name::PLAINTEXT, |key| key.pod == pod, wanted)
    }

    /// Sets some plaintext rows, then removes others.
    pub(crate) fn change_plaintext(
        &self,
        set: &[(PodPort, u32)],
        gone: &[PodPort],
    ) -> Result<(), KernelError> {
        change(&self.plaintext, name::PLAINTEXT, set, gone)
    }

    /// Excludes some ports, then others no longer.
    pub(crate) fn change_excluded_ports(
        &self,
        set: &[(PodPort, u32)],
        gone: &[PodPort],
    ) -> Result<(), KernelError> {
        change(&self.excluded_ports, name::EXCLUDED_PORTS, set, gone)
    }

    /// Makes the pod's excluded ranges in the map these: data with a prefix length in bits.
    pub(crate) fn set_excluded_ranges(
        &self,
        pod: PodId,
        wanted: &[(u32, RangeData)],
    ) -> Result<(), KernelError> {
        let map = lock(&self.excluded_ranges);
        let keep: Vec<_> = wanted.iter().map(|(bits, data)| Key::new(*bits, *data)).collect();
        let same =
            |a: &Key<RangeData>, b: &Key<RangeData>| a.prefix_len() == b.prefix_len() && a.data() == b.data();
        let stale: Vec<_> = map
            .keys()
            .filter_map(Result::ok)
            .filter(|key| key.data().pod == pod.to_ne_bytes() && !keep.iter().any(|k| same(k, key)))
            .map(|key| (key.prefix_len(), key.data()))
            .collect();
        drop(map);
        self.change_excluded_ranges(wanted, &stale)
    }

    /// Excludes some ranges, then others no longer.
    pub(crate) fn change_excluded_ranges(
        &self,
        set: &[(u32, RangeData)],
        gone: &[(u32, RangeData)],
    ) -> Result<(), KernelError> {
        let mut map = lock(&self.excluded_ranges);
        for (bits, data) in set {
            map.insert(&Key::new(*bits, *data), 1, 0)
                .map_err(in_map(name::EXCLUDED_RANGES))?;
        }
        for (bits, data) in gone {
            absent_is_fine(map.remove(&Key::new(*bits, *data)), name::EXCLUDED_RANGES)?;
        }
        Ok(())
    }

    /// Sums of the programs' counters.
    pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL
            .iter()
            .map(|counter| (counter.name(), self.counter(*counter)))
            .collect()
    }

    /// Sum of one counter over all processors.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        let own = match counter {
            Counter::ListeningFull => self.listening_refused.load(Ordering::Relaxed),
            _ => 0,
        };
        let programs = lock(&self.counters).get(&counter.row(), 0);
        own + programs.map_or(0, |per_cpu| per_cpu.iter().sum())
    }

    /// How full the maps are. Walks them: for a scrape, not for a connection.
    pub(crate) fn fill(&self) -> Vec<Fill> {
        let entries = |map, capacity| match map {
            name::PODS => count(lock(&self.pods).keys(), capacity),
            name::POD_ADDRESSES => count(lock(&self.addresses).keys(), capacity),
            name::PLAINTEXT => count(lock(&self.plaintext).keys(), capacity),
            name::EXCLUDED_PORTS => count(lock(&self.excluded_ports).keys(), capacity),
            name::EXCLUDED_RANGES => count(lock(&self.excluded_ranges).keys(), capacity),
            name::LISTENING => count(lock(&self.listening).keys(), capacity),
            _ => count(lock(&self.registry).keys(), capacity),
        };
        Self::own_capacities()
            .into_iter()
            .map(|(map, capacity)| Fill {
                map,
                entries: entries(map, capacity),
                capacity,
            })
            .chain(self.verdicts.fill())
            .chain(self.services.fill())
            .collect()
    }

    /// The names and capacities alone, without a walk.
    pub(crate) fn capacities() -> Vec<(&'static str, usize)> {
        let own = Self::own_capacities().into_iter();
        own.chain(VerdictMaps::capacities())
            .chain(ServiceMaps::capacities())
            .collect()
    }

    fn own_capacities() -> [(&'static str, usize); 7] {
        use tramline_common::map::{MAX_POD_ROWS, MAX_REGISTRY};
        [
            (name::PODS, MAX_PODS),
            (name::POD_ADDRESSES, MAX_POD_ROWS),
            (name::PLAINTEXT, MAX_POD_ROWS),
            (name::EXCLUDED_PORTS, MAX_POD_ROWS),
            (name::EXCLUDED_RANGES, MAX_POD_ROWS),
            (name::LISTENING, MAX_POD_ROWS),
            (name::REGISTRY, MAX_REGISTRY),
        ]
    }

    /// The ring buffer, for the one task that reads it.
    pub(crate) fn take_events(&self) -> Option<RingBuf<MapData>> {
        lock(&self.events).take()
    }
}

/// Takes one map out of a loaded object.
pub(super) fn one<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    map: &'static str,
) -> Result<T, KernelError> {
    let taken = ebpf.take_map(map).ok_or(KernelError::Missing(map))?;
    T::try_from(taken).map_err(|source| KernelError::Map { map, source })
}

/// Another descriptor of a socket storage, while it is in the object.
fn descriptor(ebpf: &Ebpf, map: &'static str) -> Result<OwnedFd, KernelError> {
    let Some(Map::SkStorage(data)) = ebpf.map(map) else {
        return Err(KernelError::Missing(map));
    };
    let copied = data.fd().as_fd().try_clone_to_owned();
    copied.map_err(|error| in_map(map)(MapError::IoError(error)))
}

/// The keys of a map that only the agent writes.
pub(super) fn keys<K: Plain + Ord, V: Plain>(
    map: &Mutex<HashMap<MapData, K, V>>,
    capacity: usize,
) -> BTreeSet<K> {
    let keys = lock(map);
    keys.keys().take(2 * capacity).filter_map(Result::ok).collect()
}

/// A walk begins again where a key goes away under it (connections end all the time): without a bound it might never
/// come to its end.
pub(super) fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>, capacity: usize) -> usize {
    keys.take(capacity).filter(Result::is_ok).count()
}

/// Inserts the wanted rows, then removes the pod's other rows. Walks the rows of all pods to find them: for a pod of which it
/// is not known what the map has; [`change`] is for the others.
pub(super) fn replace<K: Plain + Eq, V: Plain>(
    map: &Mutex<HashMap<MapData, K, V>>,
    map_name: &'static str,
    is_pods: impl Fn(&K) -> bool,
    wanted: &[(K, V)],
) -> Result<(), KernelError> {
    change(map, map_name, wanted, &[])?;
    let is_stale = |key: &K| is_pods(key) && !wanted.iter().any(|(wanted, _)| wanted == key);
    let stale: Vec<K> = lock(map).keys().filter_map(Result::ok).filter(is_stale).collect();
    change(map, map_name, &[], &stale)
}

/// Inserts rows, then removes others: there is no moment without a row that stays.
fn change<K: Plain, V: Plain>(
    map: &Mutex<HashMap<MapData, K, V>>,
    map_name: &'static str,
    set: &[(K, V)],
    gone: &[K],
) -> Result<(), KernelError> {
    let mut map = lock(map);
    for (key, value) in set {
        map.insert(key, value, 0).map_err(in_map(map_name))?;
    }
    for key in gone {
        absent_is_fine(map.remove(key), map_name)?;
    }
    Ok(())
}

pub(super) fn in_map(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}

pub(super) fn absent_is_fine(result: Result<(), MapError>, map: &'static str) -> Result<(), KernelError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(in_map(map)),
    }
}

pub(super) fn unless_there(result: Result<(), MapError>, map: &'static str) -> Result<(), KernelError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {
            Ok(())
        }
        other => other.map_err(in_map(map)),
    }
}

/// A poisoned lock guards no half-done state here: every critical section is one system call.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
