//! What the kernel may answer by itself to plaintext from a peer without identity.

use std::collections::{BTreeMap, BTreeSet};

use crate::authz::{Facts, RuleSet, Truth};
use crate::mesh::{Mesh, Protection, WorkloadPolicies};
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
        Some(protection) => verdict_of(&protection, workload, port),
        None => PlaintextVerdict::Drop,
    }
}

/// The answers for every port of a workload.
pub fn table(mesh: &Mesh, workload: &Workload) -> PlaintextTable {
    let Some(protection) = mesh.policies_of(&workload.uid) else {
        return PlaintextTable {
            default: PlaintextVerdict::Drop,
            ports: BTreeMap::new(),
        };
    };
    let named = named_ports(&protection.policies);
    // Ports are only ever compared for equality, so any unnamed one stands for all of them; if all 65,535 are
    // named, the default is never used.
    let unnamed = (1..=u16::MAX).find(|port| !named.contains(port));
    let default = unnamed.map_or(PlaintextVerdict::Ask, |port| {
        verdict_of(&protection, workload, port)
    });
    let ports = named
        .into_iter()
        .map(|port| (port, verdict_of(&protection, workload, port)))
        .collect();
    PlaintextTable { default, ports }
}

fn verdict_of(protection: &Protection<'_>, workload: &Workload, port: u16) -> PlaintextVerdict {
    let policies = &protection.policies;
    if policies.mtls.at(port).strict || protection.closed_by.is_some() {
        return PlaintextVerdict::Drop;
    }
    let facts = Facts {
        source: None,
        source_address: None,
        destination_addresses: &workload.addresses,
        port,
    };
    let scopes = policies.enforced();
    let denied = |truth| {
        let rules = scopes.iter().flat_map(|tiers| [&tiers.custom, &tiers.deny]);
        any(rules, &facts, truth)
    };
    if denied(Truth::Yes) {
        return PlaintextVerdict::Drop;
    }
    let may_be_denied = denied(Truth::Maybe);
    let let_in = |truth| any(scopes.iter().map(|tiers| &tiers.allow), &facts, truth);
    let allowed = scopes.iter().all(|tiers| tiers.allow.is_empty()) || let_in(Truth::Yes);
    let may_be_allowed = allowed || let_in(Truth::Maybe);
    match (may_be_allowed, allowed && !may_be_denied) {
        (false, _) => PlaintextVerdict::Drop,
        (true, true) => PlaintextVerdict::Pass,
        (true, false) => PlaintextVerdict::Ask,
    }
}

fn any<'a>(mut rules: impl Iterator<Item = &'a RuleSet>, facts: &Facts<'_>, truth: Truth) -> bool {
    rules.any(|rules| rules.any_without_identity(facts, |found| found == truth))
}

fn named_ports(policies: &WorkloadPolicies) -> BTreeSet<u16> {
    let mut named: BTreeSet<u16> = policies.mtls.named_ports().collect();
    for tiers in policies.enforced() {
        for rules in [&tiers.custom, &tiers.deny, &tiers.allow] {
            named.extend(rules.ports_without_identity());
        }
    }
    named
}
