//! AuthorizationPolicy as data.

use std::sync::Arc;

use super::matcher::{IpMatch, ServiceAccountMatch, StringMatch, port};
use super::{PatternError, PolicyName};
use crate::labels::Selector;
use crate::object::Meta;

/// `spec.action`; AUDIT and CUSTOM are refused by every source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Lets in what a rule matches; makes everything else unwelcome.
    #[default]
    Allow,
    /// Keeps out what a rule matches.
    Deny,
}

/// One AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Metadata.
    pub meta: Meta,
    /// The name as decisions carry it.
    pub name: Arc<PolicyName>,
    /// `spec.selector`.
    pub selector: Option<Selector>,
    /// `spec.action`.
    pub action: Action,
    /// `spec.rules`; none at all never matches.
    pub rules: Vec<Rule>,
}

impl AuthorizationPolicy {
    /// A policy from its parts.
    pub fn new(meta: Meta, selector: Option<Selector>, action: Action, rules: Vec<Rule>) -> Self {
        let name = Arc::new(PolicyName::of(&meta));
        Self {
            meta,
            name,
            selector,
            action,
            rules,
        }
    }
}

/// `spec.rules[]`: any of `from` AND any of `to` AND all of `when`; an absent part is satisfied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Who.
    pub from: Vec<Source>,
    /// To what.
    pub to: Vec<Operation>,
    /// Under which conditions.
    pub when: Vec<Condition>,
}

/// A field and its `not` twin: any of `any` (when given) and none of `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchList<T> {
    /// `X`: one of these, unless empty.
    pub any: Vec<T>,
    /// `notX`: none of these.
    pub none: Vec<T>,
}

impl<T> Default for MatchList<T> {
    fn default() -> Self {
        Self {
            any: Vec::new(),
            none: Vec::new(),
        }
    }
}

impl<T> MatchList<T> {
    /// Whether neither the field nor its twin was given.
    pub fn is_empty(&self) -> bool {
        self.any.is_empty() && self.none.is_empty()
    }
}

/// `from[].source`: all of the fields that are given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// `principals` and `notPrincipals`, against the whole principal.
    pub principals: MatchList<StringMatch>,
    /// `namespaces` and `notNamespaces`, against the namespace of the identity.
    pub namespaces: MatchList<StringMatch>,
    /// `serviceAccounts` and `notServiceAccounts`, in any trust domain.
    pub service_accounts: MatchList<ServiceAccountMatch>,
    /// `ipBlocks` and `notIpBlocks`, against the peer's address.
    pub ip_blocks: MatchList<IpMatch>,
}

/// `to[].operation`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// `ports` and `notPorts`, against the workload's port.
    pub ports: MatchList<u16>,
}

/// `when[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The key with its values.
    pub matches: ConditionMatch,
}

/// The keys of `when` that exist at L4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionMatch {
    /// `source.ip`
    SourceIp(MatchList<IpMatch>),
    /// `source.namespace`
    SourceNamespace(MatchList<StringMatch>),
    /// `source.principal`
    SourcePrincipal(MatchList<StringMatch>),
    /// `source.serviceAccount`
    SourceServiceAccount(MatchList<ServiceAccountMatch>),
    /// `destination.ip`
    DestinationIp(MatchList<IpMatch>),
    /// `destination.port`
    DestinationPort(MatchList<u16>),
}

impl Operation {
    /// Reads one entry of `ports`.
    ///
    /// # Errors
    /// Anything but a number from 1 to 65535.
    pub fn port(text: &str) -> Result<u16, PatternError> {
        port(text)
    }
}

impl Condition {
    /// The keys that are understood, for error messages.
    pub const KEYS: &'static [&'static str] = &[
        "source.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "destination.ip",
        "destination.port",
    ];
}
