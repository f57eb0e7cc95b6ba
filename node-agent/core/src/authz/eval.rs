//! Evaluation in three values, so that one evaluator serves both the decision (everything known) and the projection
//! for the kernel (the peer's address not known yet).

use std::net::IpAddr;
use std::sync::Arc;

use super::PolicyRule;
use super::policy::{AuthorizationPolicy, Condition, ConditionMatch, MatchList, Operation, Rule, Source};
use crate::identity::SpiffeId;

/// Kleene's three values, ordered so that AND is the minimum and OR the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The identity the peer proved.
    pub(crate) source: Option<&'a SpiffeId>,
    /// The peer's address; `None` while it may be any.
    pub(crate) source_address: Option<IpAddr>,
    /// The address that was dialled: one of these.
    pub(crate) destination_addresses: &'a [IpAddr],
    /// The port that was dialled.
    pub(crate) port: u16,
}

/// The first rule of the policies whose truth is accepted.
pub(crate) fn first_match(
    policies: &[Arc<AuthorizationPolicy>],
    facts: &Facts<'_>,
    accept: impl Fn(Truth) -> bool,
) -> Option<PolicyRule> {
    policies.iter().find_map(|policy| {
        let rule = policy
            .rules
            .iter()
            .position(|rule| accept(rule_matches(rule, facts)))?;
        Some(PolicyRule {
            policy: policy.name.clone(),
            rule,
        })
    })
}

fn rule_matches(rule: &Rule, facts: &Facts<'_>) -> Truth {
    // Cheapest first: a port that does not fit spares the identity's string comparisons.
    let to = any_or_absent(&rule.to, |operation| operation_matches(operation, facts));
    if to == Truth::No {
        return to;
    }
    let from = any_or_absent(&rule.from, |source| source_matches(source, facts));
    let when = rule
        .when
        .iter()
        .map(|condition| condition_matches(condition, facts))
        .min();
    to.min(from).min(when.unwrap_or(Truth::Yes))
}

fn any_or_absent<T>(entries: &[T], matches: impl Fn(&T) -> Truth) -> Truth {
    entries.iter().map(matches).max().unwrap_or(Truth::Yes)
}

fn source_matches(source: &Source, facts: &Facts<'_>) -> Truth {
    let identity = facts.source;
    [
        list(&source.principals, |m| {
            identity.is_some_and(|id| m.matches(id.principal())).into()
        }),
        list(&source.namespaces, |m| {
            identity.is_some_and(|id| m.matches(id.namespace())).into()
        }),
        list(&source.service_accounts, |m| {
            identity.is_some_and(|id| m.matches(id)).into()
        }),
        list(&source.ip_blocks, |m| {
            source_address(facts, |address| m.matches(address))
        }),
    ]
    .into_iter()
    .min()
    .unwrap_or(Truth::Yes)
}

fn operation_matches(operation: &Operation, facts: &Facts<'_>) -> Truth {
    list(&operation.ports, |port| (*port == facts.port).into())
}

fn condition_matches(condition: &Condition, facts: &Facts<'_>) -> Truth {
    let identity = facts.source;
    match &condition.matches {
        ConditionMatch::SourceIp(values) => list(values, |m| source_address(facts, |a| m.matches(a))),
        ConditionMatch::SourceNamespace(values) => list(values, |m| {
            identity.is_some_and(|id| m.matches(id.namespace())).into()
        }),
        ConditionMatch::SourcePrincipal(values) => list(values, |m| {
            identity.is_some_and(|id| m.matches(id.principal())).into()
        }),
        ConditionMatch::SourceServiceAccount(values) => {
            list(values, |m| identity.is_some_and(|id| m.matches(id)).into())
        }
        ConditionMatch::DestinationIp(values) => {
            list(values, |m| destination_address(facts, |a| m.matches(a)))
        }
        ConditionMatch::DestinationPort(values) => list(values, |port| (*port == facts.port).into()),
    }
}

/// Any of `any` (when given) AND NOT any of `none`.
fn list<T>(list: &MatchList<T>, matches: impl Fn(&T) -> Truth) -> Truth {
    let any = any_or_absent(&list.any, &matches);
    let none = list.none.iter().map(&matches).max().unwrap_or(Truth::No);
    any.min(none.not())
}

fn source_address(facts: &Facts<'_>, matches: impl Fn(IpAddr) -> bool) -> Truth {
    facts
        .source_address
        .map_or(Truth::Maybe, |address| matches(address).into())
}

fn destination_address(facts: &Facts<'_>, matches: impl Fn(IpAddr) -> bool) -> Truth {
    let (mut yes, mut no) = (false, false);
    for address in facts.destination_addresses {
        if matches(*address) { yes = true } else { no = true }
    }
    match (yes, no) {
        (true, false) => Truth::Yes,
        (false, true) => Truth::No,
        _ => Truth::Maybe,
    }
}
