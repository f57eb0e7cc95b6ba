//! Istio PeerAuthentication: whether a workload takes plaintext.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::labels::Selector;
use crate::object::Meta;

/// `mtls.mode`. `DISABLE` has no variant: in ambient mode Istio treats it as permissive, and sources read it so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The next wider policy decides; permissive where there is none.
    #[default]
    Unset,
    /// mTLS and plaintext.
    Permissive,
    /// mTLS only.
    Strict,
}

/// One PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Metadata.
    pub meta: Meta,
    /// `spec.selector`.
    pub selector: Option<Selector>,
    /// `spec.mtls.mode`.
    pub mode: Mode,
    /// `spec.portLevelMtls`, by the workload's port.
    pub ports: BTreeMap<u16, Mode>,
}

/// The name of a policy, as decisions and logs carry it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct PolicyName {
    /// Namespace of the policy.
    pub namespace: Arc<str>,
    /// Name of the policy.
    pub name: Arc<str>,
}

impl PolicyName {
    /// The name from an object's metadata.
    pub fn of(meta: &Meta) -> Self {
        Self {
            namespace: meta.object.namespace.clone(),
            name: meta.object.name.clone(),
        }
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What one port requires, and whose word that is. `None`: nobody asked, the default is permissive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Whether plaintext is refused.
    pub strict: bool,
    /// The policy that says so.
    pub by: Option<Arc<PolicyName>>,
}

/// The policies that apply to one workload, resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EffectiveMtls {
    default: Requirement,
    ports: BTreeMap<u16, Requirement>,
}

impl EffectiveMtls {
    /// Resolves the precedence workload > namespace > mesh, `UNSET` inheriting from the next wider.
    pub fn resolve(
        workload: Option<&PeerAuthentication>,
        namespace: Option<&PeerAuthentication>,
        mesh: Option<&PeerAuthentication>,
    ) -> Self {
        let requirement = |policy: &PeerAuthentication, mode: Mode| match mode {
            Mode::Unset => None,
            Mode::Permissive => Some(Requirement {
                strict: false,
                by: Some(Arc::new(PolicyName::of(&policy.meta))),
            }),
            Mode::Strict => Some(Requirement {
                strict: true,
                by: Some(Arc::new(PolicyName::of(&policy.meta))),
            }),
        };
        let default = [workload, namespace, mesh]
            .into_iter()
            .flatten()
            .find_map(|policy| requirement(policy, policy.mode))
            .unwrap_or_default();
        let ports = workload
            .into_iter()
            .flat_map(|policy| {
                policy
                    .ports
                    .iter()
                    .map(move |(port, mode)| (policy, *port, *mode))
            })
            .filter_map(|(policy, port, mode)| Some((port, requirement(policy, mode)?)))
            .collect();
        Self { default, ports }
    }

    /// What a port of the workload requires.
    pub fn at(&self, port: u16) -> &Requirement {
        self.ports.get(&port).unwrap_or(&self.default)
    }

    /// Ports that differ from the others by name, for tables.
    pub fn named_ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.keys().copied()
    }
}
