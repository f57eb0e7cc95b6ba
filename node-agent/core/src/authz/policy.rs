//! AuthorizationPolicy as data.

use std::fmt;
use std::sync::Arc;

use super::matcher::{IpMatch, ServiceAccountMatch, StringMatch, port};
use super::{PatternError, PolicyName};
use crate::labels::Selector;
use crate::object::Meta;

/// `spec.action`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// Lets in what a rule matches; makes everything else unwelcome.
    #[default]
    Allow,
    /// Keeps out what a rule matches.
    Deny,
    /// Marks what a rule matches and never decides.
    Audit,
    /// Leaves what a rule matches to an external authorizer. There is none here, so it is kept out.
    Custom,
}

impl Action {
    /// As it is written in a policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// `spec.targetRef`, or one entry of `spec.targetRefs`: a policy that has one is meant for a proxy in front of workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What it names.
    pub kind: TargetKind,
    /// The name, in the policy's own namespace.
    pub name: Arc<str>,
    /// Written as `spec.targetRef`, not in the list.
    pub alone: bool,
}

/// What a target can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// gateway.networking.k8s.io Gateway, an ingress or a waypoint.
    Gateway,
    /// gateway.networking.k8s.io GatewayClass, all gateways of a class.
    GatewayClass,
    /// core Service, at its waypoint.
    Service,
    /// networking.istio.io ServiceEntry, at its waypoint.
    ServiceEntry,
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One AuthorizationPolicy, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Metadata.
    pub meta: Meta,
    /// The name as decisions carry it.
    pub name: Arc<PolicyName>,
    /// `spec.selector`.
    pub selector: Option<Selector>,
    /// `spec.targetRef` and `spec.targetRefs`.
    pub targets: Vec<Target>,
    /// `spec.action`.
    pub action: Action,
    /// Annotation `istio.io/dry-run`: evaluated and reported, never enforced.
    pub dry_run: bool,
    /// `spec.rules`; none at all never matches.
    pub rules: Vec<Rule>,
}

impl AuthorizationPolicy {
    /// A policy that is enforced, from its parts.
    pub fn new(meta: Meta, selector: Option<Selector>, action: Action, rules: Vec<Rule>) -> Self {
        let name = Arc::new(PolicyName::of(&meta));
        Self {
            meta,
            name,
            selector,
            targets: Vec::new(),
            action,
            dry_run: false,
            rules,
        }
    }

    /// Whether the workloads behind the Services it targets are closed: nothing stands before them that could ask it.
    pub(crate) fn closes_targets(&self) -> bool {
        !self.dry_run && self.action != Action::Audit
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

impl Rule {
    /// The fields that need HTTP, such as `to[0].operation.methods`. Nobody looks at HTTP here: a rule of an ALLOW
    /// policy that has any lets nobody in, a rule of any other policy is read as if it had none.
    pub fn http_fields(&self) -> impl Iterator<Item = String> {
        let from = self.from.iter().enumerate().flat_map(|(index, source)| {
            let name = move |field: &&str| format!("from[{index}].source.{field}");
            source.http.iter().map(name)
        });
        let to = self.to.iter().enumerate().flat_map(|(index, operation)| {
            let name = move |field: &&str| format!("to[{index}].operation.{field}");
            operation.http.iter().map(name)
        });
        let when = self
            .when
            .iter()
            .enumerate()
            .filter_map(|(index, condition)| match &condition.matches {
                ConditionMatch::Http(key) => Some(format!("when[{index}] {key}")),
                _ => None,
            });
        from.chain(to).chain(when)
    }

    /// Every port that the rule names, to include or to exclude it.
    pub(crate) fn named_ports(&self) -> impl Iterator<Item = u16> {
        let when = self.when.iter().filter_map(|condition| match &condition.matches {
            ConditionMatch::DestinationPort(ports) => Some(ports),
            _ => None,
        });
        let to = self.to.iter().map(|operation| &operation.ports);
        to.chain(when)
            .flat_map(|ports| ports.any.iter().chain(&ports.none))
            .copied()
    }

    /// Whether any field needs HTTP.
    pub fn needs_http(&self) -> bool {
        self.from.iter().any(|source| !source.http.is_empty())
            || self.to.iter().any(|operation| !operation.http.is_empty())
            || self.when.iter().any(|condition| condition.field().is_none())
    }
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
    /// `trustDomains` and `notTrustDomains`, against the trust domain of the identity.
    pub trust_domains: MatchList<StringMatch>,
    /// `ipBlocks` and `notIpBlocks`, against the peer's address.
    pub ip_blocks: MatchList<IpMatch>,
    /// The names of given fields that need HTTP, such as `requestPrincipals`.
    pub http: Vec<&'static str>,
}

/// `to[].operation`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Operation {
    /// `ports` and `notPorts`, against the workload's port.
    pub ports: MatchList<u16>,
    /// The names of given fields that need HTTP, such as `methods`.
    pub http: Vec<&'static str>,
}

/// `when[]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The key with its values.
    pub matches: ConditionMatch,
}

/// The keys of `when`.
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
    /// `source.trustDomain`
    SourceTrustDomain(MatchList<StringMatch>),
    /// `destination.ip`
    DestinationIp(MatchList<IpMatch>),
    /// `destination.port`
    DestinationPort(MatchList<u16>),
    /// A key that needs HTTP, such as `request.headers[x-user]`.
    Http(Arc<str>),
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
    /// The keys that are decided on, for error messages.
    pub const KEYS: &'static [&'static str] = &[
        "source.ip",
        "source.namespace",
        "source.principal",
        "source.serviceAccount",
        "source.trustDomain",
        "destination.ip",
        "destination.port",
    ];

    /// The keys of the standard that need HTTP; those that end in `[` or `.` go on with a name.
    pub const HTTP_KEYS: &'static [&'static str] = &[
        "request.headers[",
        "remote.ip",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "request.auth.claims[",
        "connection.sni",
        "experimental.envoy.filters.",
    ];

    /// Whether a key is one of [`Self::HTTP_KEYS`], written out.
    pub fn is_http_key(key: &str) -> bool {
        Self::HTTP_KEYS.iter().any(|known| match key.strip_prefix(known) {
            Some("") => !known.ends_with(['[', '.']),
            Some(rest) if known.ends_with('[') => rest.len() > 1 && rest.ends_with(']'),
            Some(_) => known.ends_with('.'),
            None => false,
        })
    }
}
