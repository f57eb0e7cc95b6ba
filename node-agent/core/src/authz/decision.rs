//! The answer to a connection, and who gave it.

use std::fmt;
use std::sync::Arc;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{Action, PolicyName};
use crate::reason::Reason;

/// One rule of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// The policy.
    pub policy: Arc<PolicyName>,
    /// The action of the policy.
    pub action: Action,
    /// Index into `spec.rules`.
    pub rule: usize,
}

impl fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rule {}", self.policy, self.rule)?;
        match self.action {
            Action::Custom => f.write_str(" (CUSTOM, and there is no external authorizer)"),
            _ => Ok(()),
        }
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
    /// A rule of a DENY policy, or of a CUSTOM one.
    Rule(PolicyRule),
    /// ALLOW policies select the workload and none of their rules matches.
    NoAllowRule,
    /// A policy for a Service's waypoint: the workload is behind the Service, and there is no waypoint.
    TargetClosed(Arc<PolicyName>),
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
                by: DeniedBy::Rule(_) | DeniedBy::NoAllowRule | DeniedBy::TargetClosed(_),
            } => Reason::PolicyDenied,
        }
    }

    /// The policy that decided, unless a default did.
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::Deny {
                by: DeniedBy::MtlsRequired(by),
            } => by.as_deref(),
            Self::Deny {
                by: DeniedBy::TargetClosed(by),
            } => Some(by),
            _ => self.rule().map(|rule| &*rule.policy),
        }
    }

    /// The rule that decided, unless something else did.
    pub fn rule(&self) -> Option<&PolicyRule> {
        match self {
            Self::Allow {
                by: AllowedBy::Rule(rule),
            }
            | Self::Deny {
                by: DeniedBy::Rule(rule),
            } => Some(rule),
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
                by: DeniedBy::TargetClosed(by),
            } => write!(
                f,
                "denied: AuthorizationPolicy {by} is for the waypoint of a Service, and there is none"
            ),
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

/// `{allowed, reason, policy, rule, text}`; `policy` and `rule` are null where a default decided.
impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Decision", 5)?;
        fields.serialize_field("allowed", &self.is_allow())?;
        fields.serialize_field("reason", self.reason().as_str())?;
        fields.serialize_field("policy", &self.policy().map(ToString::to_string))?;
        fields.serialize_field("rule", &self.rule().map(|rule| rule.rule))?;
        fields.serialize_field("text", &self.to_string())?;
        fields.end()
    }
}
