//! Istio AuthorizationPolicy at L4, and the decision it leads to.

mod aliases;
mod decision;
mod eval;
mod explain;
mod field;
mod index;
mod matcher;
mod overview;
mod policy;
mod rules;
mod status;

use std::net::{IpAddr, SocketAddr};

pub use decision::{AllowedBy, Decision, DeniedBy, PolicyRule};
pub use explain::{Clause, Explanation, FieldStep, MtlsStep, PolicyStep, RuleStep, Scope, explain};
pub(crate) use matcher::unmapped;
pub use matcher::{IpMatch, PatternError, ServiceAccountMatch, StringMatch};
pub use overview::{ConditionOverview, PolicyOverview, overview};
pub use policy::{
    Action, AuthorizationPolicy, Condition, ConditionMatch, MatchList, Operation, Rule, Source, Target,
    TargetKind,
};
pub use status::{PolicyCondition, PolicyReason, PolicyStatus};

pub(crate) use eval::{Facts, Truth};
pub(crate) use rules::RuleSet;

pub use crate::peer_authentication::PolicyName;

use crate::identity::SpiffeId;
use crate::mesh::{Mesh, Protection, Tiers};
use crate::workload::Workload;

/// A connection that asks to be let in.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The identity the peer proved; `None` for plaintext.
    pub source: Option<&'a SpiffeId>,
    /// The peer's address (`source.ip`).
    pub source_address: IpAddr,
    /// The workload that is dialled.
    pub destination: &'a Workload,
    /// Its address and port.
    pub destination_address: SocketAddr,
}

/// Whether a connection may pass: PeerAuthentication, then CUSTOM and DENY policies, then ALLOW policies.
///
/// A destination that the snapshot does not hold is denied. [`explain`] says how the answer came about.
pub fn decide(mesh: &Mesh, connection: &Connection<'_>) -> Decision {
    match mesh.policies_of(&connection.destination.uid) {
        Some(protection) => with_facts(connection, |facts| decide_by(&protection, facts)),
        None => Decision::Deny {
            by: DeniedBy::UnknownWorkload,
        },
    }
}

/// What [`decide`] would say if the policies with annotation `istio.io/dry-run` were enforced with the others. `None`
/// where no such policy applies. For logs and counters only.
pub fn dry_run(mesh: &Mesh, connection: &Connection<'_>) -> Option<Decision> {
    let protection = mesh.policies_of(&connection.destination.uid)?;
    with_facts(connection, |facts| dry_run_by(&protection, facts))
}

/// Whether a workload with this identity may pass from whatever address it comes; `None` if that depends on the address.
///
/// [`decide`] says the same of every connection of that identity to that address and port.
pub fn decide_from_anywhere(
    mesh: &Mesh,
    source: &SpiffeId,
    destination: &Workload,
    destination_address: SocketAddr,
) -> Option<bool> {
    let Some(protection) = mesh.policies_of(&destination.uid) else {
        return Some(false);
    };
    if protection.closed_by.is_some() {
        return Some(false);
    }
    let destination = [destination_address.ip().to_canonical()];
    let facts = Facts {
        source: Some(source),
        source_address: None,
        destination_addresses: &destination,
        port: destination_address.port(),
    };
    let scopes = protection.policies.enforced();
    let any = |rules: &RuleSet, truth: Truth| rules.first(&facts, |found| found == truth).is_some();
    let denied = |truth| {
        scopes
            .iter()
            .any(|tiers| any(&tiers.custom, truth) || any(&tiers.deny, truth))
    };
    if denied(Truth::Yes) {
        return Some(false);
    }
    let may_be_denied = denied(Truth::Maybe);
    let let_in = |truth| scopes.iter().any(|tiers| any(&tiers.allow, truth));
    let allowed = scopes.iter().all(|tiers| tiers.allow.is_empty()) || let_in(Truth::Yes);
    match (allowed, may_be_denied) {
        (true, false) => Some(true),
        (true, true) => None,
        (false, _) if let_in(Truth::Maybe) => None,
        (false, _) => Some(false),
    }
}

/// What the policies look at, with every address in its canonical form.
fn with_facts<T>(connection: &Connection<'_>, then: impl FnOnce(&Facts<'_>) -> T) -> T {
    let destination = [connection.destination_address.ip().to_canonical()];
    then(&Facts {
        source: connection.source,
        source_address: Some(connection.source_address.to_canonical()),
        destination_addresses: &destination,
        port: connection.destination_address.port(),
    })
}

fn decide_by(protection: &Protection<'_>, facts: &Facts<'_>) -> Decision {
    decide_with(protection, protection.policies.enforced(), facts)
}

fn dry_run_by(protection: &Protection<'_>, facts: &Facts<'_>) -> Option<Decision> {
    let trial = protection.policies.trial()?;
    Some(decide_with(protection, trial, facts))
}

fn decide_with(protection: &Protection<'_>, scopes: [&Tiers; 2], facts: &Facts<'_>) -> Decision {
    if facts.source.is_none() {
        let requirement = protection.policies.mtls.at(facts.port);
        if requirement.strict {
            return Decision::Deny {
                by: DeniedBy::MtlsRequired(requirement.by.clone()),
            };
        }
    }
    if let Some(policy) = protection.closed_by {
        return Decision::Deny {
            by: DeniedBy::TargetClosed(policy.name.clone()),
        };
    }
    // Every fact is known, so nothing is `Maybe`; were it ever, it has to count against the connection.
    let keeps_out = |rules: &RuleSet| rules.first(facts, |truth| truth != Truth::No);
    let custom = scopes.iter().map(|tiers| &tiers.custom);
    let deny = scopes.iter().map(|tiers| &tiers.deny);
    if let Some(by) = custom.chain(deny).find_map(keeps_out) {
        return Decision::Deny {
            by: DeniedBy::Rule(by),
        };
    }
    if scopes.iter().all(|tiers| tiers.allow.is_empty()) {
        return Decision::Allow {
            by: AllowedBy::Default,
        };
    }
    let lets_in = |tiers: &&Tiers| tiers.allow.first(facts, |truth| truth == Truth::Yes);
    match scopes.iter().find_map(lets_in) {
        Some(by) => Decision::Allow {
            by: AllowedBy::Rule(by),
        },
        None => Decision::Deny {
            by: DeniedBy::NoAllowRule,
        },
    }
}
