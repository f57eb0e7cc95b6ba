//! Every policy at a glance: what it asks for, of whom, and what becomes of it.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::explain::Scope;
use super::field::Field;
use super::policy::{AuthorizationPolicy, Rule, TargetKind};
use super::status::PolicyStatus;
use crate::labels::Selector;
use crate::mesh::Mesh;
use crate::object::Meta;
use crate::peer_authentication::{Mode, PeerAuthentication, PolicyName};
use crate::workload::Workload;

/// Workloads that are named for one policy; the others are counted.
const MAX_WORKLOADS: usize = 100;

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyOverview {
    /// `AuthorizationPolicy` or `PeerAuthentication`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it was written, such as `FILE:LINE`.
    pub origin: Option<String>,
    /// `mesh`, `namespace`, `workloads` (a selector) or `target` (`spec.targetRefs`).
    pub scope: String,
    /// The labels or the targets of the scope.
    pub selects: Option<String>,
    /// `ALLOW`, `DENY`, `CUSTOM` or `AUDIT`; of a PeerAuthentication `STRICT`, `PERMISSIVE` or `UNSET`.
    pub action: String,
    /// Annotation `istio.io/dry-run`: evaluated and reported, not enforced.
    pub dry_run: bool,
    /// Its rules in words; of a PeerAuthentication its ports.
    pub rules: Vec<String>,
    /// `NAMESPACE/NAME` of the first hundred workloads that it applies to. A PeerAuthentication applies where no
    /// narrower or older one has the word.
    pub workloads: Vec<String>,
    /// How many workloads it applies to.
    pub workloads_total: usize,
    /// Whether it is enforced as it is written. If not it still counts, in the direction that keeps out.
    pub accepted: bool,
    /// What there is to say about that.
    pub conditions: Vec<ConditionOverview>,
}

/// One thing to say about a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionOverview {
    /// Stable code, such as `rule_dropped`.
    pub reason: String,
    /// Where in the policy.
    pub field: String,
    /// What that means, in a sentence.
    pub message: String,
}

/// Every policy, AuthorizationPolicies first, by namespace and name. Looks at each workload of a policy's namespace:
/// for people, not for the data path.
pub fn overview(mesh: &Mesh) -> Vec<PolicyOverview> {
    let mut by_namespace = HashMap::<&str, Vec<&Workload>>::new();
    for workload in mesh.workloads() {
        by_namespace
            .entry(&workload.namespace)
            .or_default()
            .push(workload);
    }
    let statuses: HashMap<_, _> = mesh
        .policy_statuses()
        .map(|status| (status.policy.clone(), status))
        .collect();
    let followed = peer_authentications_followed(mesh);
    let authorization = mesh
        .policies()
        .map(|policy| of_authorization(mesh, policy, &by_namespace, statuses.get(&policy.name)));
    let authentication = mesh
        .peer_authentications()
        .map(|policy| of_authentication(mesh, policy, &followed));
    authorization.chain(authentication).collect()
}

fn of_authorization(
    mesh: &Mesh,
    policy: &AuthorizationPolicy,
    by_namespace: &HashMap<&str, Vec<&Workload>>,
    status: Option<&PolicyStatus>,
) -> PolicyOverview {
    let root = policy.name.namespace == mesh.settings().root_namespace;
    let targets: Vec<_> = policy
        .targets
        .iter()
        .map(|target| format!("{} {}", target.kind, target.name))
        .collect();
    let applies = |workload: &&&Workload| {
        let selector = policy.selector.as_ref();
        selector.is_none_or(|selector| selector.matches(&workload.labels))
    };
    let mut workloads: Vec<String> = if targets.is_empty() {
        by_namespace
            .iter()
            .filter(|(namespace, _)| root || **namespace == &*policy.name.namespace)
            .flat_map(|(_, workloads)| workloads.iter().filter(applies))
            .map(|workload| name_of(workload))
            .collect()
    } else {
        behind_targets(mesh, policy)
    };
    let (scope, selects) = match targets.is_empty() {
        true => scope(root, policy.selector.as_ref()),
        false => ("target", Some(targets.join(", "))),
    };
    let workloads_total = bounded(&mut workloads);
    PolicyOverview {
        scope: scope.to_owned(),
        selects,
        action: policy.action.as_str().to_owned(),
        dry_run: policy.dry_run,
        rules: policy.rules.iter().map(rule_text).collect(),
        workloads,
        workloads_total,
        accepted: status.is_some_and(|status| status.accepted),
        conditions: status.map(conditions).unwrap_or_default(),
        ..named("AuthorizationPolicy", &policy.meta)
    }
}

fn of_authentication(
    mesh: &Mesh,
    policy: &PeerAuthentication,
    followed: &HashMap<Arc<PolicyName>, Vec<String>>,
) -> PolicyOverview {
    let name = PolicyName::of(&policy.meta);
    let root = name.namespace == mesh.settings().root_namespace;
    let mut workloads = followed.get(&name).cloned().unwrap_or_default();
    let workloads_total = bounded(&mut workloads);
    let (scope, selects) = scope(root, policy.selector.as_ref());
    PolicyOverview {
        scope: scope.to_owned(),
        selects,
        action: mode(policy.mode).to_owned(),
        rules: policy
            .ports
            .iter()
            .map(|(port, of_port)| format!("port {port}: {}", mode(*of_port)))
            .collect(),
        workloads,
        workloads_total,
        // Whatever could not be enforced was refused with the whole configuration.
        accepted: true,
        ..named("PeerAuthentication", &policy.meta)
    }
}

fn named(kind: &str, meta: &Meta) -> PolicyOverview {
    PolicyOverview {
        kind: kind.to_owned(),
        namespace: meta.object.namespace.to_string(),
        name: meta.object.name.to_string(),
        origin: meta.object.origin.as_ref().map(ToString::to_string),
        scope: String::new(),
        selects: None,
        action: String::new(),
        dry_run: false,
        rules: Vec::new(),
        workloads: Vec::new(),
        workloads_total: 0,
        accepted: false,
        conditions: Vec::new(),
    }
}

fn scope(root: bool, selector: Option<&Selector>) -> (&'static str, Option<String>) {
    match selector {
        Some(selector) => {
            let scope = Scope::Selector(
                selector
                    .labels()
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect::<Vec<_>>()
                    .join(", "),
            );
            ("workloads", Some(scope.to_string()))
        }
        None if root => ("mesh", None),
        None => ("namespace", None),
    }
}

fn behind_targets(mesh: &Mesh, policy: &AuthorizationPolicy) -> Vec<String> {
    let mut workloads: Vec<_> = policy
        .targets
        .iter()
        .filter(|target| target.kind == TargetKind::Service)
        .filter_map(|target| mesh.service(&policy.name.namespace, &target.name))
        .flat_map(|service| &service.endpoints)
        .filter_map(|endpoint| mesh.workload(endpoint.workload.as_ref()?))
        .map(|workload| name_of(workload))
        .collect();
    workloads.sort_unstable();
    workloads.dedup();
    workloads
}

/// The workloads by the PeerAuthentication that has the word on any of their ports.
fn peer_authentications_followed(mesh: &Mesh) -> HashMap<Arc<PolicyName>, Vec<String>> {
    let mut followed = HashMap::<Arc<PolicyName>, Vec<String>>::new();
    for workload in mesh.workloads() {
        let Some(protection) = mesh.policies_of(&workload.uid) else {
            continue;
        };
        let mtls = &protection.policies.mtls;
        // No policy can name port 0, so its answer is that of every port that none names.
        let mut by: Vec<_> = std::iter::once(0)
            .chain(mtls.named_ports())
            .filter_map(|port| mtls.at(port).by.clone())
            .collect();
        by.sort_unstable();
        by.dedup();
        for policy in by {
            followed.entry(policy).or_default().push(name_of(workload));
        }
    }
    followed
}

/// Sorts, and keeps the first ones; returns how many there were.
fn bounded(workloads: &mut Vec<String>) -> usize {
    let total = workloads.len();
    workloads.sort_unstable();
    workloads.truncate(MAX_WORKLOADS);
    total
}

fn conditions(status: &PolicyStatus) -> Vec<ConditionOverview> {
    let overview = |condition: &super::PolicyCondition| ConditionOverview {
        reason: condition.reason.to_string(),
        field: condition.field.clone(),
        message: condition.message.clone(),
    };
    status.conditions.iter().map(overview).collect()
}

fn rule_text(rule: &Rule) -> String {
    let fields = |fields: &[(&'static str, Field<'_>)]| {
        let given: Vec<_> = fields
            .iter()
            .filter(|(_, field)| field.is_given())
            .map(|(name, field)| format!("{name} {}", field.wanted()))
            .collect();
        if given.is_empty() {
            "anything".to_owned()
        } else {
            given.join(" and ")
        }
    };
    let mut parts = Vec::new();
    let from: Vec<_> = rule.from.iter().map(|source| fields(&source.fields())).collect();
    if !from.is_empty() {
        parts.push(format!("from {}", from.join(" or ")));
    }
    let to: Vec<_> = rule
        .to
        .iter()
        .map(|operation| fields(&operation.fields()))
        .collect();
    if !to.is_empty() {
        parts.push(format!("to {}", to.join(" or ")));
    }
    let when = rule.when.iter().filter_map(|condition| condition.field());
    parts.extend(when.map(|(key, field)| format!("when {key} {}", field.wanted())));
    let http: Vec<_> = rule.http_fields().collect();
    if !http.is_empty() {
        parts.push(format!("HTTP is not looked at: {}", http.join(", ")));
    }
    if parts.is_empty() {
        "anything".to_owned()
    } else {
        parts.join("; ")
    }
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Unset => "UNSET",
        Mode::Permissive => "PERMISSIVE",
        Mode::Strict => "STRICT",
    }
}

fn name_of(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}
