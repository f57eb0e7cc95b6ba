//! The kernel's rows of a pod, projected from the policy core.

use crate::broker::PodRows;
use tramline_common::map::plaintext;
use tramline_core::{
    mesh::Mesh,
    plaintext::{self as core_plaintext, PlaintextVerdict},
    workload::Workload,
};

/// What the snapshot says about a pod.
pub(super) fn of(mesh: &Mesh, workload: &Workload) -> PodRows {
    let table = core_plaintext::table(mesh, workload);
    PodRows {
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

fn row(verdict: PlaintextVerdict) -> u32 {
    match verdict {
        PlaintextVerdict::Pass => plaintext::PASS,
        PlaintextVerdict::Ask => plaintext::ASK,
        PlaintextVerdict::Drop => plaintext::DROP,
    }
}
