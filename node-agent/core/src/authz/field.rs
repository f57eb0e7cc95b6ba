//! One field of a policy with its `not` twin, wherever it stands: what the evaluator compares, what `explain` shows.

use std::fmt;
use std::net::IpAddr;

use super::eval::{Facts, Truth};
use super::matcher::{IpMatch, ServiceAccountMatch, StringMatch};
use super::policy::{Condition, ConditionMatch, MatchList, Operation, Source};

/// A field by what it is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Field<'a> {
    Principal(&'a MatchList<StringMatch>),
    Namespace(&'a MatchList<StringMatch>),
    TrustDomain(&'a MatchList<StringMatch>),
    ServiceAccount(&'a MatchList<ServiceAccountMatch>),
    SourceIp(&'a MatchList<IpMatch>),
    DestinationIp(&'a MatchList<IpMatch>),
    Port(&'a MatchList<u16>),
}

impl Source {
    /// Every field with its name, given or not.
    pub(super) fn fields(&self) -> [(&'static str, Field<'_>); 5] {
        [
            ("principals", Field::Principal(&self.principals)),
            ("namespaces", Field::Namespace(&self.namespaces)),
            ("serviceAccounts", Field::ServiceAccount(&self.service_accounts)),
            ("trustDomains", Field::TrustDomain(&self.trust_domains)),
            ("ipBlocks", Field::SourceIp(&self.ip_blocks)),
        ]
    }
}

impl Operation {
    /// Every field with its name, given or not.
    pub(super) fn fields(&self) -> [(&'static str, Field<'_>); 1] {
        [("ports", Field::Port(&self.ports))]
    }
}

impl Condition {
    /// The key with its values; `None` for one that needs HTTP.
    pub(super) fn field(&self) -> Option<(&'static str, Field<'_>)> {
        Some(match &self.matches {
            ConditionMatch::SourceIp(list) => ("source.ip", Field::SourceIp(list)),
            ConditionMatch::SourceNamespace(list) => ("source.namespace", Field::Namespace(list)),
            ConditionMatch::SourcePrincipal(list) => ("source.principal", Field::Principal(list)),
            ConditionMatch::SourceServiceAccount(list) => {
                ("source.serviceAccount", Field::ServiceAccount(list))
            }
            ConditionMatch::SourceTrustDomain(list) => ("source.trustDomain", Field::TrustDomain(list)),
            ConditionMatch::DestinationIp(list) => ("destination.ip", Field::DestinationIp(list)),
            ConditionMatch::DestinationPort(list) => ("destination.port", Field::Port(list)),
            ConditionMatch::Http(_) => return None,
        })
    }
}

impl Field<'_> {
    /// Whether a connection satisfies the field; one that is not given is always satisfied.
    pub(super) fn truth(self, facts: &Facts<'_>) -> Truth {
        let identity = facts.source;
        match self {
            Self::Principal(list) => truth(list, |m| {
                identity.is_some_and(|id| m.matches(id.principal())).into()
            }),
            Self::Namespace(list) => truth(list, |m| {
                identity.is_some_and(|id| m.matches(id.namespace())).into()
            }),
            Self::TrustDomain(list) => truth(list, |m| {
                identity
                    .is_some_and(|id| m.matches(id.trust_domain().as_str()))
                    .into()
            }),
            Self::ServiceAccount(list) => truth(list, |m| identity.is_some_and(|id| m.matches(id)).into()),
            Self::SourceIp(list) => truth(list, |m| {
                facts
                    .source_address
                    .map_or(Truth::Maybe, |address| m.matches(address).into())
            }),
            Self::DestinationIp(list) => truth(list, |m| {
                all_or_maybe(facts.destination_addresses, |a| m.matches(a))
            }),
            Self::Port(list) => truth(list, |port| (*port == facts.port).into()),
        }
    }

    /// Whether the policy gives the field or its twin.
    pub(super) fn is_given(self) -> bool {
        match self {
            Self::Principal(list) | Self::Namespace(list) | Self::TrustDomain(list) => !list.is_empty(),
            Self::ServiceAccount(list) => !list.is_empty(),
            Self::SourceIp(list) | Self::DestinationIp(list) => !list.is_empty(),
            Self::Port(list) => !list.is_empty(),
        }
    }

    /// Whether only a peer that proved an identity can satisfy it.
    pub(super) fn needs_identity(self) -> bool {
        match self {
            Self::Principal(list) | Self::Namespace(list) | Self::TrustDomain(list) => !list.any.is_empty(),
            Self::ServiceAccount(list) => !list.any.is_empty(),
            Self::SourceIp(_) | Self::DestinationIp(_) | Self::Port(_) => false,
        }
    }

    /// What the policy asks for, in words.
    pub(super) fn wanted(self) -> String {
        match self {
            Self::Principal(list) | Self::Namespace(list) | Self::TrustDomain(list) => wanted(list),
            Self::ServiceAccount(list) => wanted(list),
            Self::SourceIp(list) | Self::DestinationIp(list) => wanted(list),
            Self::Port(list) => wanted(list),
        }
    }

    /// What the connection has to offer; `None` for a peer that proved nothing.
    pub(super) fn actual(self, facts: &Facts<'_>) -> Option<String> {
        let joined = |addresses: &[IpAddr]| {
            let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            (!texts.is_empty()).then(|| texts.join(", "))
        };
        match self {
            Self::Principal(_) => facts.source.map(|id| id.principal().to_owned()),
            Self::Namespace(_) => facts.source.map(|id| id.namespace().to_owned()),
            Self::TrustDomain(_) => facts.source.map(|id| id.trust_domain().to_string()),
            Self::ServiceAccount(_) => facts
                .source
                .map(|id| format!("{}/{}", id.namespace(), id.service_account())),
            Self::SourceIp(_) => facts.source_address.map(|address| address.to_string()),
            Self::DestinationIp(_) => joined(facts.destination_addresses),
            Self::Port(_) => Some(facts.port.to_string()),
        }
    }
}

/// Any of `any` (when given) AND NOT any of `none`.
fn truth<T>(list: &MatchList<T>, matches: impl Fn(&T) -> Truth) -> Truth {
    let any = list.any.iter().map(&matches).max().unwrap_or(Truth::Yes);
    if any == Truth::No {
        return any;
    }
    let none = list.none.iter().map(&matches).max().unwrap_or(Truth::No);
    any.min(none.not())
}

/// Certain only if every address says the same.
fn all_or_maybe(addresses: &[IpAddr], matches: impl Fn(IpAddr) -> bool) -> Truth {
    let (mut yes, mut no) = (false, false);
    for address in addresses {
        if matches(*address) { yes = true } else { no = true }
    }
    match (yes, no) {
        (true, false) => Truth::Yes,
        (false, true) => Truth::No,
        _ => Truth::Maybe,
    }
}

/// The values that are shown of one list; the rest is counted.
const SHOWN: usize = 8;

fn wanted<T: fmt::Display>(list: &MatchList<T>) -> String {
    let values = |values: &[T]| {
        let shown: Vec<_> = values.iter().take(SHOWN).map(ToString::to_string).collect();
        match values.len().saturating_sub(SHOWN) {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    };
    match (list.any.is_empty(), list.none.is_empty()) {
        (false, true) => format!("one of {}", values(&list.any)),
        (true, false) => format!("none of {}", values(&list.none)),
        _ => format!("one of {} but none of {}", values(&list.any), values(&list.none)),
    }
}
