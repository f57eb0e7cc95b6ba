//! What the kernel may answer by itself to plaintext from a peer without identity.

use std::collections::{BTreeMap, BTreeSet};

use crate::authz::{ConditionMatch, Facts, Truth, first_match};
use crate::mesh::{Mesh, WorkloadPolicies};
use crate::workload::Workload;

/// The kernel's answer for one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlaintextVerdict {
    /// Every plaintext peer may come in: to the application, no agent between.
    Pass,
    /// It depends on something the kernel does not look at, such as the peer's address: to the agent.
    Ask,
    /// No plaintext peer may come in.
    Drop,
}

/// The answers for every port of one workload. `tramline.dev/exclude-inbound-ports` is not considered: those ports
/// are never asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaintextTable {
    /// For ports that no policy names.
    pub default: PlaintextVerdict,
    /// For ports that some policy names.
    pub ports: BTreeMap<u16, PlaintextVerdict>,
}

/// The answer for one port of a workload: exactly what [`crate::authz::decide`] would say to every peer without
/// identity, or [`PlaintextVerdict::Ask`].
pub fn verdict(mesh: &Mesh, workload: &Workload, port: u16) -> PlaintextVerdict {
    match mesh.policies_of(&workload.uid) {
        Some(policies) => verdict_of(policies, workload, port),
        None => PlaintextVerdict::Drop,
    }
}

/// The answers for every port of a workload.
pub fn table(mesh: &Mesh, workload: &Workload) -> PlaintextTable {
    let Some(policies) = mesh.policies_of(&workload.uid) else {
        return PlaintextTable {
            default: PlaintextVerdict::Drop,
            ports: BTreeMap::new(),
        };
    };
    let named = named_ports(policies);
    // Ports are only ever compared for equality, so any unnamed one stands for all of them; if all 65,535 are
    // named, the default is never used.
    let unnamed = (1..=u16::MAX).find(|port| !named.contains(port));
    let default = unnamed.map_or(PlaintextVerdict::Ask, |port| verdict_of(policies, workload, port));
    let ports = named
        .into_iter()
        .map(|port| (port, verdict_of(policies, workload, port)))
        .collect();
    PlaintextTable { default, ports }
}

fn verdict_of(policies: &WorkloadPolicies, workload: &Workload, port: u16) -> PlaintextVerdict {
    if policies.mtls.at(port).strict {
        return PlaintextVerdict::Drop;
    }
    let facts = Facts {
        source: None,
        source_address: None,
        destination_addresses: &workload.addresses,
        port,
    };
    if first_match(&policies.deny, &facts, |truth| truth == Truth::Yes).is_some() {
        return PlaintextVerdict::Drop;
    }
    let may_be_denied = first_match(&policies.deny, &facts, |truth| truth == Truth::Maybe).is_some();
    let allowed = policies.allow.is_empty()
        || first_match(&policies.allow, &facts, |truth| truth == Truth::Yes).is_some();
    let may_be_allowed =
        allowed || first_match(&policies.allow, &facts, |truth| truth == Truth::Maybe).is_some();
    match (may_be_allowed, allowed && !may_be_denied) {
        (false, _) => PlaintextVerdict::Drop,
        (true, true) => PlaintextVerdict::Pass,
        (true, false) => PlaintextVerdict::Ask,
    }
}

fn named_ports(policies: &WorkloadPolicies) -> BTreeSet<u16> {
    let mut named: BTreeSet<u16> = policies.mtls.named_ports().collect();
    for rule in policies
        .deny
        .iter()
        .chain(&policies.allow)
        .flat_map(|policy| &policy.rules)
    {
        for operation in &rule.to {
            named.extend(operation.ports.any.iter().chain(&operation.ports.none));
        }
        for condition in &rule.when {
            if let ConditionMatch::DestinationPort(ports) = &condition.matches {
                named.extend(ports.any.iter().chain(&ports.none));
            }
        }
    }
    named
}
