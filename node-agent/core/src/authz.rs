//! Istio AuthorizationPolicy at L4, and the decision it leads to.

mod eval;
mod matcher;
mod policy;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use matcher::{IpMatch, PatternError, ServiceAccountMatch, StringMatch};
pub use policy::{
    Action, AuthorizationPolicy, Condition, ConditionMatch, MatchList, Operation, Rule, Source,
};

pub(crate) use eval::{Facts, Truth, first_match};

pub use crate::peer_authentication::PolicyName;

use crate::identity::SpiffeId;
use crate::mesh::Mesh;
use crate::reason::Reason;
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

/// One rule of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The policy.
    pub policy: Arc<PolicyName>,
    /// Index into `spec.rules`.
    pub rule: usize,
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.policy, self.rule)
    }
}

/// What let a connection in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedBy {
    /// No ALLOW policy selects the workload.
    Default,
    /// A rule of an ALLOW policy.
    Rule(PolicyRule),
}

/// What kept a connection out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeniedBy {
    /// PeerAuthentication STRICT, and the peer proved no identity.
    MtlsRequired(Option<Arc<PolicyName>>),
    /// A rule of a DENY policy.
    Rule(PolicyRule),
    /// ALLOW policies select the workload and none of their rules matches.
    NoAllowRule,
    /// The snapshot does not hold the destination, so nobody can say which policies protect it.
    UnknownWorkload,
}

/// Whether a connection may pass, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It may.
    Allow {
        /// Who says so.
        by: AllowedBy,
    },
    /// It may not.
    Deny {
        /// Who says so.
        by: DeniedBy,
    },
}

impl Decision {
    /// Whether it may pass.
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The code for logs and metrics; [`Reason::Ok`] when allowed.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Allow { .. } => Reason::Ok,
            Self::Deny {
                by: DeniedBy::MtlsRequired(_),
            } => Reason::MtlsRequired,
            Self::Deny {
                by: DeniedBy::UnknownWorkload,
            } => Reason::UnknownWorkload,
            Self::Deny {
                by: DeniedBy::Rule(_) | DeniedBy::NoAllowRule,
            } => Reason::PolicyDenied,
        }
    }

    /// The policy that decided, unless a default did.
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::Allow {
                by: AllowedBy::Rule(rule),
            }
            | Self::Deny {
                by: DeniedBy::Rule(rule),
            } => Some(&rule.policy),
            Self::Deny {
                by: DeniedBy::MtlsRequired(by),
            } => by.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow {
                by: AllowedBy::Default,
            } => f.write_str("allowed: no ALLOW policy applies"),
            Self::Allow {
                by: AllowedBy::Rule(rule),
            } => write!(f, "allowed by AuthorizationPolicy {rule}"),
            Self::Deny {
                by: DeniedBy::Rule(rule),
            } => write!(f, "denied by AuthorizationPolicy {rule}"),
            Self::Deny {
                by: DeniedBy::NoAllowRule,
            } => f.write_str("denied: no rule of the ALLOW policies matches"),
            Self::Deny {
                by: DeniedBy::UnknownWorkload,
            } => f.write_str("denied: the destination is not known"),
            Self::Deny {
                by: DeniedBy::MtlsRequired(Some(by)),
            } => {
                write!(f, "denied: PeerAuthentication {by} requires mutual TLS")
            }
            Self::Deny {
                by: DeniedBy::MtlsRequired(None),
            } => f.write_str("denied: mutual TLS is required"),
        }
    }
}

/// Whether a connection may pass: PeerAuthentication, then DENY policies, then ALLOW policies.
///
/// A destination that the snapshot does not hold is denied.
pub fn decide(mesh: &Mesh, connection: &Connection<'_>) -> Decision {
    let Some(policies) = mesh.policies_of(&connection.destination.uid) else {
        return Decision::Deny {
            by: DeniedBy::UnknownWorkload,
        };
    };
    let port = connection.destination_address.port();
    if connection.source.is_none() {
        let requirement = policies.mtls.at(port);
        if requirement.strict {
            return Decision::Deny {
                by: DeniedBy::MtlsRequired(requirement.by.clone()),
            };
        }
    }
    let destination = [connection.destination_address.ip().to_canonical()];
    let facts = Facts {
        source: connection.source,
        source_address: Some(connection.source_address.to_canonical()),
        destination_addresses: &destination,
        port,
    };
    // Every fact is known, so nothing is `Maybe`; were it ever, it has to count against the connection.
    if let Some(by) = first_match(&policies.deny, &facts, |truth| truth != Truth::No) {
        return Decision::Deny {
            by: DeniedBy::Rule(by),
        };
    }
    if policies.allow.is_empty() {
        return Decision::Allow {
            by: AllowedBy::Default,
        };
    }
    match first_match(&policies.allow, &facts, |truth| truth == Truth::Yes) {
        Some(by) => Decision::Allow {
            by: AllowedBy::Rule(by),
        },
        None => Decision::Deny {
            by: DeniedBy::NoAllowRule,
        },
    }
}
