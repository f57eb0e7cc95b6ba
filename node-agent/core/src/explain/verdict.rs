//! What comes of a connection.

use serde::Serialize;

use super::name_of_service;
use crate::authz::{self, Decision, DeniedBy};
use crate::reason::Reason;
use crate::route::RouteError;
use crate::service::Service;

/// The answer in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The mesh lets it through.
    Allow,
    /// A policy refuses it.
    Deny,
    /// There is nowhere it could go.
    Unreachable,
    /// Some endpoints let it in and others do not: it depends on which one is chosen.
    Mixed,
}

/// The answer with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conclusion {
    /// In one word.
    pub verdict: Verdict,
    /// The reason code, as in the access log and the metrics; `ok` when allowed.
    #[serde(serialize_with = "as_code")]
    pub reason: Reason,
    /// The same for a person.
    pub text: String,
    /// What would change it; several are alternatives.
    pub changes: Vec<String>,
}

fn as_code<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

impl Conclusion {
    pub(super) fn allow(text: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Allow,
            reason: Reason::Ok,
            text: text.into(),
            changes: Vec::new(),
        }
    }

    pub(super) fn unreachable(reason: Reason, text: impl Into<String>, changes: Vec<String>) -> Self {
        Self {
            verdict: Verdict::Unreachable,
            reason,
            text: text.into(),
            changes,
        }
    }

    /// What a policy decision means.
    pub(super) fn of(explanation: &authz::Explanation) -> Self {
        let decision = &explanation.decision;
        if decision.is_allow() {
            return Self::allow(decision.to_string());
        }
        Self {
            verdict: Verdict::Deny,
            reason: decision.reason(),
            text: decision.to_string(),
            changes: changes(explanation),
        }
    }
}

fn changes(explanation: &authz::Explanation) -> Vec<String> {
    let Decision::Deny { by } = &explanation.decision else {
        return Vec::new();
    };
    let identity = explanation
        .mtls
        .as_ref()
        .and_then(|mtls| mtls.identity.as_deref());
    match by {
        DeniedBy::MtlsRequired(policy) => {
            let mut changes = vec!["enrol the source: then it proves its identity".to_owned()];
            if let Some(policy) = policy {
                changes.push(format!(
                    "let PeerAuthentication {policy} take plaintext here (PERMISSIVE)"
                ));
            }
            changes
        }
        DeniedBy::Rule(rule) => vec![format!(
            "change rule {} of {} policy {} so that it does not match this source",
            rule.rule,
            rule.action.as_str(),
            rule.policy
        )],
        DeniedBy::TargetClosed(policy) => vec![format!(
            "write policy {policy} with a selector instead of targetRefs: no waypoint is there to ask it"
        )],
        DeniedBy::NoAllowRule => {
            let policies: Vec<_> = explanation
                .policies
                .iter()
                .filter(|step| step.action == "ALLOW" && step.enforced)
                .map(|step| step.policy.as_str())
                .collect();
            let who = match identity.and_then(|identity| identity.strip_prefix("spiffe://")) {
                Some(principal) => format!("principal {principal}"),
                None => "this source's address: it has no identity, being in plaintext".to_owned(),
            };
            vec![format!(
                "add a rule that matches {who} to one of the ALLOW policies {}",
                policies.join(", ")
            )]
        }
        _ => Vec::new(),
    }
}

/// A Service address that leads nowhere.
pub(super) fn of_route(error: &RouteError) -> Conclusion {
    let service = error.service();
    let changes = match error {
        RouteError::UnknownServicePort { .. } => {
            let ports: Vec<_> = service.ports.iter().map(|port| port.port.to_string()).collect();
            vec![format!("dial one of its ports: {}", ports.join(", "))]
        }
        RouteError::NoLocalEndpoint { node, .. } => vec![format!(
            "run one of its pods on node {node}, or set spec.internalTrafficPolicy to Cluster"
        )],
        RouteError::NoHealthyEndpoint { .. } => {
            vec!["make one of its endpoints ready; `tramline services -o wide` lists them".to_owned()]
        }
    };
    Conclusion::unreachable(error.reason(), error.to_string(), changes)
}

/// A headless Service whose name resolves to nothing.
pub(super) fn no_endpoint(service: &Service) -> Conclusion {
    Conclusion::unreachable(
        Reason::NoHealthyEndpoint,
        format!(
            "Service {} is headless and has no ready endpoint of an address family that the source has",
            name_of_service(service)
        ),
        vec!["make one of its endpoints ready; `tramline services -o wide` lists them".to_owned()],
    )
}
