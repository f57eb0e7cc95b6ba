//! Which policies protect which workload.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MeshSettings, ScopePolicies, Tiers, WorkloadPolicies};
use crate::authz::{Action, AuthorizationPolicy, RuleSet, TargetKind};
use crate::object::ObjectError;
use crate::peer_authentication::{EffectiveMtls, PeerAuthentication};
use crate::service::Service;
use crate::workload::{Workload, WorkloadUid};

/// Policies by the namespace they were written in, so that a workload looks at two lists and not at all policies, and
/// a change touches one.
#[derive(Debug, Clone)]
pub(super) struct Scopes {
    root: Arc<str>,
    authorization: Arc<HashMap<Arc<str>, Vec<Arc<AuthorizationPolicy>>>>,
    authentication: Arc<HashMap<Arc<str>, Vec<Arc<PeerAuthentication>>>>,
}

/// The policies that select one workload, in order.
pub(super) struct Selection<'a> {
    /// Of its namespace and of the root namespace.
    authorization: [Vec<&'a Arc<AuthorizationPolicy>>; 2],
    /// Of the workload, its namespace and the mesh.
    authentication: [Option<&'a Arc<PeerAuthentication>>; 3],
}

/// What the same policies of one namespace make for each workload that they select, by where they are in memory.
#[derive(Default)]
pub(super) struct Shared(HashMap<Vec<usize>, Arc<ScopePolicies>>);

impl Shared {
    /// What workloads share already.
    pub(super) fn of<'a>(prepared: impl Iterator<Item = &'a Arc<WorkloadPolicies>>) -> Self {
        let scopes = prepared.flat_map(|policies| &policies.scopes);
        Self(scopes.map(|scope| (scope.key.clone(), scope.clone())).collect())
    }
}

impl Scopes {
    /// The policies, sorted by name, by namespace.
    pub(super) fn new(
        authorization: &[Arc<AuthorizationPolicy>],
        authentication: &[Arc<PeerAuthentication>],
        settings: &MeshSettings,
    ) -> Self {
        let mut by_namespace: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for policy in authorization {
            let namespace = policy.name.namespace.clone();
            by_namespace.entry(namespace).or_default().push(policy.clone());
        }
        let mut authentication_by_namespace: HashMap<Arc<str>, Vec<_>> = HashMap::new();
        for policy in authentication {
            let namespace = policy.meta.object.namespace.clone();
            authentication_by_namespace
                .entry(namespace)
                .or_default()
                .push(policy.clone());
        }
        authentication_by_namespace
            .values_mut()
            .for_each(|policies| oldest_first(policies));
        Self {
            root: settings.root_namespace.clone(),
            authorization: Arc::new(by_namespace),
            authentication: Arc::new(authentication_by_namespace),
        }
    }

    /// Puts other policies, sorted by name, in the place of those of one namespace.
    pub(super) fn set_authorization(&mut self, namespace: &Arc<str>, policies: &[Arc<AuthorizationPolicy>]) {
        Arc::make_mut(&mut self.authorization).insert(namespace.clone(), policies.to_vec());
    }

    /// Puts other policies in the place of those of one namespace.
    pub(super) fn set_authentication(&mut self, namespace: &Arc<str>, policies: &[Arc<PeerAuthentication>]) {
        let mut policies = policies.to_vec();
        oldest_first(&mut policies);
        Arc::make_mut(&mut self.authentication).insert(namespace.clone(), policies);
    }

    /// The policies that select a workload.
    pub(super) fn select(&self, workload: &Workload) -> Selection<'_> {
        Selection {
            authorization: self.selected(workload),
            authentication: self.authentication(workload),
        }
    }

    /// Namespace first, then mesh, as Istio gathers them; each includes the policies that select the workload. One with
    /// targets is for a proxy that stands elsewhere.
    fn selected(&self, workload: &Workload) -> [Vec<&Arc<AuthorizationPolicy>>; 2] {
        let root = (workload.namespace != self.root).then_some(&self.root);
        [Some(&workload.namespace), root].map(|namespace| {
            namespace
                .and_then(|namespace| self.authorization.get(namespace))
                .into_iter()
                .flatten()
                .filter(|policy| policy.targets.is_empty())
                .filter(|policy| {
                    policy
                        .selector
                        .as_ref()
                        .is_none_or(|s| s.matches(&workload.labels))
                })
                .collect()
        })
    }

    fn authentication(&self, workload: &Workload) -> [Option<&Arc<PeerAuthentication>>; 3] {
        let of = |namespace: &Arc<str>| {
            self.authentication
                .get(namespace)
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let (own, root) = (of(&workload.namespace), of(&self.root));
        let selecting = own.iter().find(|p| {
            p.selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&workload.labels))
        });
        let whole = |policies: &'_ [Arc<PeerAuthentication>]| {
            policies.iter().position(|policy| policy.selector.is_none())
        };
        let namespace = if workload.namespace == self.root {
            None
        } else {
            whole(own).and_then(|index| own.get(index))
        };
        [
            selecting,
            namespace,
            whole(root).and_then(|index| root.get(index)),
        ]
    }
}

/// Oldest first, then by name: the first that fits wins.
fn oldest_first(policies: &mut [Arc<PeerAuthentication>]) {
    policies
        .sort_by(|a, b| (&a.meta.created, &a.meta.object.name).cmp(&(&b.meta.created, &b.meta.object.name)));
}

impl Selection<'_> {
    /// What protects the workload.
    pub(super) fn resolve(&self, shared: &mut Shared) -> WorkloadPolicies {
        let [workload, namespace, mesh] = self.authentication.map(|policy| policy.map(AsRef::as_ref));
        WorkloadPolicies {
            mtls: EffectiveMtls::resolve(workload, namespace, mesh),
            scopes: self.authorization.each_ref().map(|policies| {
                let key: Vec<_> = policies
                    .iter()
                    .map(|policy| Arc::as_ptr(policy) as usize)
                    .collect();
                if let Some(made) = shared.0.get(&key) {
                    return made.clone();
                }
                let made = Arc::new(scope(policies, key.clone()));
                shared.0.insert(key, made.clone());
                made
            }),
        }
    }
}

/// The policies, sorted by what they do and indexed.
fn scope(policies: &[&Arc<AuthorizationPolicy>], key: Vec<usize>) -> ScopePolicies {
    let of = |action: Action, trial: bool| -> Vec<_> {
        let fits =
            |policy: &&&Arc<AuthorizationPolicy>| policy.action == action && (trial || !policy.dry_run);
        policies
            .iter()
            .filter(fits)
            .map(|policy| Arc::clone(policy))
            .collect()
    };
    let tiers = |trial| Tiers {
        custom: RuleSet::new(of(Action::Custom, trial)),
        deny: RuleSet::new(of(Action::Deny, trial)),
        allow: RuleSet::new(of(Action::Allow, trial)),
    };
    let any_trial = policies
        .iter()
        .any(|policy| policy.dry_run && policy.action != Action::Audit);
    ScopePolicies {
        enforced: tiers(false),
        trial: any_trial.then(|| Box::new(tiers(true))),
        audit: of(Action::Audit, true),
        key,
    }
}

/// What protects each of these workloads.
pub(super) fn prepare<'a>(
    scopes: &Scopes,
    workloads: impl Iterator<Item = &'a Arc<Workload>>,
    mut shared: Shared,
) -> HashMap<WorkloadUid, Arc<WorkloadPolicies>> {
    workloads
        .map(|workload| {
            let policies = scopes.select(workload).resolve(&mut shared);
            (workload.uid.clone(), Arc::new(policies))
        })
        .collect()
}

/// The workloads behind Services whose policies only a waypoint could enforce, each with the first such policy. To
/// pass them by would open what their authors wanted guarded.
pub(super) fn closed_by_targets(
    policies: &[Arc<AuthorizationPolicy>],
    services: &[Arc<Service>],
) -> HashMap<WorkloadUid, Arc<AuthorizationPolicy>> {
    let mut closed = HashMap::new();
    for policy in policies.iter().filter(|policy| policy.closes_targets()) {
        let targets = |service: &&Arc<Service>| {
            service.namespace == policy.name.namespace
                && policy
                    .targets
                    .iter()
                    .any(|target| target.kind == TargetKind::Service && target.name == service.name)
        };
        if policy.targets.is_empty() {
            continue;
        }
        for service in services.iter().filter(targets) {
            for uid in service
                .endpoints
                .iter()
                .filter_map(|endpoint| endpoint.workload.as_ref())
            {
                closed.entry(uid.clone()).or_insert_with(|| policy.clone());
            }
        }
    }
    closed
}

/// What is wrong with a PeerAuthentication beyond its syntax.
pub(super) fn check_peer_authentication(
    policy: &PeerAuthentication,
    settings: &MeshSettings,
    errors: &mut Vec<ObjectError>,
) {
    let object = &policy.meta.object;
    if policy.selector.is_some() && object.namespace == settings.root_namespace {
        let problem = "a selector in the root namespace selects nothing in Istio; \
                       write the policy in the namespace of the workloads";
        errors.push(ObjectError::new(object, "spec.selector", problem));
    }
    if policy.selector.is_none() && !policy.ports.is_empty() {
        let problem = "needs spec.selector.matchLabels: ports are those of particular workloads";
        errors.push(ObjectError::new(object, "spec.portLevelMtls", problem));
    }
}
