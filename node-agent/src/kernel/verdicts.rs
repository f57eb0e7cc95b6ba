//! Typed handles of the maps of verdicts and of the connections that passed by them.

use super::{
    KernelError,
    maps::{Fill, absent_is_fine, count, in_map, keys, lock, one},
};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, RingBuf},
};
use std::{collections::BTreeSet, hash::Hash, sync::Mutex};
use tramline_common::{
    PodId,
    map::{FlowKey, MAX_PODS, name},
    verdict::{MAX_PASSED, MAX_VERDICTS, Passed, Verdict, VerdictKey},
};

/// The maps behind `tramline_common::verdict`. Each is behind its own lock, held for one system call or one walk.
pub(crate) struct VerdictMaps {
    versions: Mutex<HashMap<MapData, PodId, u64>>,
    verdicts: Mutex<HashMap<MapData, VerdictKey, Verdict>>,
    direct: Mutex<HashMap<MapData, FlowKey, Passed>>,
    outside: Mutex<HashMap<MapData, FlowKey, Passed>>,
    passages: Mutex<Option<RingBuf<MapData>>>,
}

impl VerdictMaps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            versions: Mutex::new(one(ebpf, name::VERSIONS)?),
            verdicts: Mutex::new(one(ebpf, name::VERDICTS)?),
            direct: Mutex::new(one(ebpf, name::DIRECT)?),
            outside: Mutex::new(one(ebpf, name::OUTSIDE)?),
            passages: Mutex::new(Some(one(ebpf, name::PASSAGES)?)),
        })
    }

    /// Gives a pod a version: verdicts with another one about it are nothing from now on.
    pub(crate) fn set_version(&self, pod: PodId, version: u64) -> Result<(), KernelError> {
        lock(&self.versions)
            .insert(pod, version, 0)
            .map_err(in_map(name::VERSIONS))
    }

    /// A pod without a version has no verdicts.
    pub(crate) fn remove_version(&self, pod: PodId) -> Result<(), KernelError> {
        absent_is_fine(lock(&self.versions).remove(&pod), name::VERSIONS)
    }

    /// The version of a pod.
    pub(crate) fn version(&self, pod: PodId) -> Option<u64> {
        lock(&self.versions).get(&pod, 0).ok()
    }

    /// Pods that have a version.
    pub(crate) fn with_version(&self) -> BTreeSet<PodId> {
        keys(&self.versions, MAX_PODS)
    }

    /// Leaves a verdict.
    pub(crate) fn set(&self, key: VerdictKey, verdict: Verdict) -> Result<(), KernelError> {
        lock(&self.verdicts)
            .insert(key, verdict, 0)
            .map_err(in_map(name::VERDICTS))
    }

    /// Takes a verdict back.
    pub(crate) fn remove(&self, key: &VerdictKey) -> Result<(), KernelError> {
        absent_is_fine(lock(&self.verdicts).remove(key), name::VERDICTS)
    }

    /// The verdict on what a pod dials, current or not.
    pub(crate) fn get(&self, key: &VerdictKey) -> Option<Verdict> {
        lock(&self.verdicts).get(key, 0).ok()
    }

    /// Takes back what counts no more, such as what earlier agents left.
    pub(crate) fn remove_void(&self) -> Result<(), KernelError> {
        let is_void = |(key, verdict): &(VerdictKey, Verdict)| {
            self.version(key.source) != Some(verdict.source_version)
                || (verdict.destination != 0
                    && self.version(verdict.destination) != Some(verdict.destination_version))
        };
        // One lock at a time, here and everywhere.
        let present = all(&self.verdicts, MAX_VERDICTS);
        for (key, _) in present.into_iter().filter(is_void) {
            self.remove(&key)?;
        }
        Ok(())
    }

    /// What is known of a connection between two pods of this node.
    pub(crate) fn direct(&self, key: &FlowKey) -> Option<Passed> {
        lock(&self.direct).get(key, 0).ok()
    }

    /// The live connections between two pods of this node that the kernel let pass.
    pub(crate) fn all_direct(&self) -> Vec<(FlowKey, Passed)> {
        all(&self.direct, MAX_PASSED)
    }

    /// The live connections out of the mesh that the kernel let pass.
    pub(crate) fn all_outside(&self) -> Vec<(FlowKey, Passed)> {
        all(&self.outside, MAX_PASSED)
    }

    /// How full the maps are.
    pub(super) fn fill(&self) -> [Fill; 4] {
        fn of<K: aya::Pod, V: aya::Pod>(
            map: &Mutex<HashMap<MapData, K, V>>,
            (name, capacity): (&'static str, usize),
        ) -> Fill {
            Fill {
                map: name,
                entries: count(lock(map).keys(), capacity),
                capacity,
            }
        }
        let [versions, verdicts, direct, outside] = Self::capacities();
        [
            of(&self.versions, versions),
            of(&self.verdicts, verdicts),
            of(&self.direct, direct),
            of(&self.outside, outside),
        ]
    }

    /// The names and capacities alone.
    pub(super) fn capacities() -> [(&'static str, usize); 4] {
        [
            (name::VERSIONS, MAX_PODS),
            (name::VERDICTS, MAX_VERDICTS),
            (name::DIRECT, MAX_PASSED),
            (name::OUTSIDE, MAX_PASSED),
        ]
    }

    /// The ring buffer, for the one task that reads it.
    pub(crate) fn take_passages(&self) -> Option<RingBuf<MapData>> {
        lock(&self.passages).take()
    }
}

/// A walk begins again where a key goes away under it: the bound ends it, and each entry is listed once.
pub(super) fn all<K: aya::Pod + Eq + Hash, V: aya::Pod>(
    map: &Mutex<HashMap<MapData, K, V>>,
    capacity: usize,
) -> Vec<(K, V)> {
    let map = lock(map);
    let found: std::collections::HashMap<K, V> =
        map.iter().take(2 * capacity).filter_map(Result::ok).collect();
    found.into_iter().collect()
}
