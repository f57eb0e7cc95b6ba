//! Typed handles of the maps of verdicts and of the connections that passed by them.

use super::{
    KernelError,
    maps::{Fill, absent_is_fine, count, in_map, lock, one},
};
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError, RingBuf},
};
use std::sync::Mutex;
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
        let mut verdicts = lock(&self.verdicts);
        let is_void = |key: &VerdictKey, verdict: &Verdict| {
            self.version(key.source) != Some(verdict.source_version)
                || (verdict.destination != 0
                    && self.version(verdict.destination) != Some(verdict.destination_version))
        };
        let void: Vec<VerdictKey> = verdicts
            .iter()
            .take(2 * MAX_VERDICTS)
            .filter_map(Result::ok)
            .filter(|(key, verdict)| is_void(key, verdict))
            .map(|(key, _)| key)
            .collect();
        for key in &void {
            absent_is_fine(verdicts.remove(key), name::VERDICTS)?;
        }
        Ok(())
    }

    /// What is known of a connection between two pods of this node.
    pub(crate) fn direct(&self, key: &FlowKey) -> Option<Passed> {
        lock(&self.direct).get(key, 0).ok()
    }

    /// The live connections between two pods of this node that the kernel let pass.
    pub(crate) fn all_direct(&self) -> Vec<(FlowKey, Passed)> {
        all(&self.direct)
    }

    /// The live connections out of the mesh that the kernel let pass.
    pub(crate) fn all_outside(&self) -> Vec<(FlowKey, Passed)> {
        all(&self.outside)
    }

    /// How full the maps are.
    pub(super) fn fill(&self) -> [Fill; 4] {
        let [versions, verdicts, direct, outside] = Self::capacities();
        let fill = |(map, capacity), entries| Fill {
            map,
            entries,
            capacity,
        };
        [
            fill(versions, count(lock(&self.versions).keys(), versions.1)),
            fill(verdicts, count(lock(&self.verdicts).keys(), verdicts.1)),
            fill(direct, count(lock(&self.direct).keys(), direct.1)),
            fill(outside, count(lock(&self.outside).keys(), outside.1)),
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

/// A walk begins again where a key goes away under it: the bound ends it, and each connection is listed once.
fn all(map: &Mutex<HashMap<MapData, FlowKey, Passed>>) -> Vec<(FlowKey, Passed)> {
    let map = lock(map);
    let found: std::collections::HashMap<FlowKey, Passed> = map
        .iter()
        .take(2 * MAX_PASSED)
        .filter_map(|row: Result<_, MapError>| row.ok())
        .collect();
    found.into_iter().collect()
}
