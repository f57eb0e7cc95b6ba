//! What becomes of a policy: enforced as written, or otherwise and why.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::PolicyName;
use super::policy::{Action, AuthorizationPolicy, Rule, Target, TargetKind};

/// What becomes of one AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// The policy.
    pub policy: Arc<PolicyName>,
    /// Whether it is enforced as it is written. If not it still counts, in the direction that keeps out.
    pub accepted: bool,
    /// What there is to say; empty for a policy that is enforced as it is written.
    pub conditions: Vec<PolicyCondition>,
}

/// One thing to say about a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyCondition {
    /// The code.
    pub reason: PolicyReason,
    /// Where in the policy, such as `spec.rules[0]`.
    pub field: String,
    /// What that means, in a sentence.
    pub message: String,
}

/// Why a policy is not simply enforced. The codes are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyReason {
    /// A rule of an ALLOW policy needs HTTP: it lets nobody in.
    RuleDropped,
    /// A rule of a DENY or CUSTOM policy needs HTTP: it keeps out whatever its other fields match.
    RuleWidened,
    /// A rule of a DENY or CUSTOM policy asks for nothing but HTTP, or but HTTP and ports: it keeps out everybody.
    WorkloadClosed,
    /// There is no external authorizer: what a CUSTOM policy matches is kept out.
    NoAuthorizer,
    /// The policy is for a Service's waypoint, which is not there: the workloads behind the Service are closed.
    TargetClosed,
    /// The policy is for something that the mesh does not have: it protects nothing.
    TargetUnknown,
    /// AUDIT only marks.
    AuditOnly,
    /// Annotation `istio.io/dry-run`: evaluated, reported, not enforced.
    DryRun,
}

impl PolicyReason {
    /// Stable code; never changes once released.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RuleDropped => "rule_dropped",
            Self::RuleWidened => "rule_widened",
            Self::WorkloadClosed => "workload_closed",
            Self::NoAuthorizer => "no_authorizer",
            Self::TargetClosed => "target_closed",
            Self::TargetUnknown => "target_unknown",
            Self::AuditOnly => "audit_only",
            Self::DryRun => "dry_run",
        }
    }

    /// Whether a policy with such a condition still is what its author wrote.
    const fn is_accepted(self) -> bool {
        matches!(self, Self::AuditOnly | Self::DryRun)
    }
}

impl fmt::Display for PolicyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PolicyCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.reason, self.field, self.message)
    }
}

impl PolicyStatus {
    /// The status of a policy; `service_exists` says whether the mesh knows a Service of the policy's namespace.
    pub(crate) fn of(policy: &AuthorizationPolicy, service_exists: impl Fn(&str) -> bool) -> Self {
        let mut conditions = Vec::new();
        let mut say = |reason, field: String, message: String| {
            conditions.push(PolicyCondition {
                reason,
                field,
                message,
            });
        };
        if policy.dry_run {
            let message = "evaluated and reported, not enforced";
            say(
                PolicyReason::DryRun,
                "metadata.annotations.istio.io/dry-run".into(),
                message.into(),
            );
        }
        if policy.action == Action::Audit {
            let message = "AUDIT marks connections and never keeps one out; nothing here reads the mark";
            say(PolicyReason::AuditOnly, "spec.action".into(), message.into());
        }
        if policy.action == Action::Custom {
            let message = "there is no external authorizer: what a rule matches is denied";
            say(PolicyReason::NoAuthorizer, "spec.action".into(), message.into());
        }
        for (index, target) in policy.targets.iter().enumerate() {
            let (reason, message) = target_condition(policy, target, &service_exists);
            let field = if target.alone {
                "spec.targetRef".to_owned()
            } else {
                format!("spec.targetRefs[{index}]")
            };
            say(reason, field, message);
        }
        if policy.targets.is_empty() && policy.action != Action::Audit {
            for (index, rule) in policy
                .rules
                .iter()
                .enumerate()
                .filter(|(_, rule)| rule.needs_http())
            {
                let (reason, message) = http_condition(policy.action, rule);
                say(reason, format!("spec.rules[{index}]"), message);
            }
        }
        Self {
            policy: policy.name.clone(),
            accepted: conditions.iter().all(|condition| condition.reason.is_accepted()),
            conditions,
        }
    }
}

fn target_condition(
    policy: &AuthorizationPolicy,
    target: &Target,
    service_exists: impl Fn(&str) -> bool,
) -> (PolicyReason, String) {
    let Target { kind, name, .. } = target;
    if *kind != TargetKind::Service || !service_exists(name) {
        let message = format!("there is no {kind} {name} here: the policy protects nothing");
        return (PolicyReason::TargetUnknown, message);
    }
    let effect = if policy.closes_targets() {
        "every connection to the workloads behind it is denied; write the policy with a selector"
    } else {
        "a policy that is not enforced changes nothing there"
    };
    let message = format!("no waypoint stands before Service {name}: {effect}");
    (PolicyReason::TargetClosed, message)
}

fn http_condition(action: Action, rule: &Rule) -> (PolicyReason, String) {
    let fields: Vec<_> = rule.http_fields().collect();
    let fields = fields.join(", ");
    if action == Action::Allow {
        let message = format!("needs HTTP, which is not looked at ({fields}): the rule lets nobody in");
        return (PolicyReason::RuleDropped, message);
    }
    // A clause of several entries restricts only if each of them does.
    let by_source = !rule.from.is_empty()
        && rule
            .from
            .iter()
            .all(|source| source.fields().iter().any(|(_, field)| field.is_given()));
    let by_port = !rule.to.is_empty() && rule.to.iter().all(|operation| !operation.ports.is_empty());
    let by_condition = rule.when.iter().any(|condition| condition.field().is_some());
    match (by_source || by_condition, by_port) {
        (true, _) => {
            let message =
                format!("HTTP is not looked at ({fields}): the rule denies whatever its other fields match");
            (PolicyReason::RuleWidened, message)
        }
        (false, true) => {
            let message =
                format!("HTTP is not looked at ({fields}): the rule denies every connection to its ports");
            (PolicyReason::WorkloadClosed, message)
        }
        (false, false) => {
            let message = format!("HTTP is not looked at ({fields}): the rule denies every connection");
            (PolicyReason::WorkloadClosed, message)
        }
    }
}
