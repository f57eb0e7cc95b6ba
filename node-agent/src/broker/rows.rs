//! The kernel's rows of a pod, projected from the policy core.

use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use tramline_common::map::plaintext;
use tramline_core::{
    mesh::Mesh,
    plaintext::{self as core_plaintext, PlaintextVerdict},
    workload::Workload,
};

/// What the maps hold about a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodRows {
    /// One of [`plaintext`], for ports without a row of their own.
    pub plaintext_default: u32,
    /// One of [`plaintext`] by port.
    pub plaintext: BTreeMap<u16, u32>,
    /// Ports the pod's own connects bypass the mesh to.
    pub excluded_outbound_ports: BTreeSet<u16>,
    /// Ports on which the pod is reached without the mesh.
    pub excluded_inbound_ports: BTreeSet<u16>,
    /// Destinations the pod's own connects bypass the mesh to.
    pub excluded_outbound_ranges: BTreeSet<IpNet>,
}

impl PodRows {
    /// What the snapshot says about a pod.
    pub fn of(mesh: &Mesh, workload: &Workload) -> Self {
        let table = core_plaintext::table(mesh, workload);
        Self {
            plaintext_default: row(table.default),
            plaintext: table
                .ports
                .into_iter()
                .map(|(port, verdict)| (port, row(verdict)))
                .collect(),
            excluded_outbound_ports: workload.capture.outbound_ports.iter().copied().collect(),
            excluded_inbound_ports: workload.capture.inbound_ports.iter().copied().collect(),
            excluded_outbound_ranges: workload.capture.outbound_ranges.iter().copied().collect(),
        }
    }
}

fn row(verdict: PlaintextVerdict) -> u32 {
    match verdict {
        PlaintextVerdict::Pass => plaintext::PASS,
        PlaintextVerdict::Ask => plaintext::ASK,
        PlaintextVerdict::Drop => plaintext::DROP,
    }
}
