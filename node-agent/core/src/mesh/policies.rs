//! Which policies protect which workload.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MeshSettings, WorkloadPolicies};
use crate::authz::{Action, AuthorizationPolicy};
use crate::object::ObjectError;
use crate::peer_authentication::{EffectiveMtls, PeerAuthentication};
use crate::workload::Workload;

/// Policies by the namespace they were written in, so that a workload looks at two lists and not at all policies.
pub(super) struct Scopes {
    root: Arc<str>,
    authorization: HashMap<Arc<str>, Vec<Arc<AuthorizationPolicy>>>,
    authentication: HashMap<Arc<str>, Vec<Arc<PeerAuthentication>>>,
}

impl Scopes {
    pub(super) fn new(
        authorization: &[Arc<AuthorizationPolicy>],
        authentication: &[Arc<PeerAuthentication>],
        settings: &MeshSettings,
    ) -> Self {
        let mut scopes = Self {
            root: settings.root_namespace.clone(),
            authorization: HashMap::new(),
            authentication: HashMap::new(),
        };
        for policy in authorization {
            let namespace = policy.meta.object.namespace.clone();
            scopes
                .authorization
                .entry(namespace)
                .or_default()
                .push(policy.clone());
        }
        for policy in authentication {
            let namespace = policy.meta.object.namespace.clone();
            scopes
                .authentication
                .entry(namespace)
                .or_default()
                .push(policy.clone());
        }
        // Oldest first, then by name: the first that fits wins.
        for policies in scopes.authentication.values_mut() {
            policies.sort_by(|a, b| {
                (&a.meta.created, &a.meta.object.name).cmp(&(&b.meta.created, &b.meta.object.name))
            });
        }
        scopes
    }

    /// The policies that protect a workload.
    pub(super) fn of(&self, workload: &Workload) -> WorkloadPolicies {
        WorkloadPolicies {
            mtls: self.mtls(workload),
            deny: self.selected(workload, Action::Deny),
            allow: self.selected(workload, Action::Allow),
        }
    }

    /// Namespace first, then mesh, as Istio gathers them; each includes the policies that select the workload.
    fn selected(&self, workload: &Workload, action: Action) -> Vec<Arc<AuthorizationPolicy>> {
        self.namespaces_of(workload)
            .filter_map(|namespace| self.authorization.get(namespace))
            .flatten()
            .filter(|policy| policy.action == action)
            .filter(|policy| {
                policy
                    .selector
                    .as_ref()
                    .is_none_or(|s| s.matches(&workload.labels))
            })
            .cloned()
            .collect()
    }

    fn mtls(&self, workload: &Workload) -> EffectiveMtls {
        let own = self
            .authentication
            .get(&workload.namespace)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let root = self
            .authentication
            .get(&self.root)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let selecting = own.iter().find(|p| {
            p.selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&workload.labels))
        });
        let whole = |policies: &'_ [Arc<PeerAuthentication>]| {
            policies.iter().find(|policy| policy.selector.is_none()).cloned()
        };
        let namespace = if workload.namespace == self.root {
            None
        } else {
            whole(own)
        };
        EffectiveMtls::resolve(
            selecting.map(AsRef::as_ref),
            namespace.as_deref(),
            whole(root).as_deref(),
        )
    }

    fn namespaces_of<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Arc<str>> {
        let root = (workload.namespace != self.root).then_some(&self.root);
        std::iter::once(&workload.namespace).chain(root)
    }
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
