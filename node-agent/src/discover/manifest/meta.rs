//! `metadata`, and the kinds that are nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tramline_core::labels::{Labels, Selector};
use tramline_core::object::{
    Created, Kind, Meta, Namespace, Node, ObjectError, ObjectRef, Owner, ServiceAccount,
};

use super::enrolment;
use super::given::Given;
use super::misspelt::Level;

/// `metadata` as every kind has it. A field that Kubernetes does not have is an error: with `namespce: prod` the policy
/// would hold in `default`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Metadata {
    name: Option<Arc<str>>,
    namespace: Option<Arc<str>>,
    uid: Option<Arc<str>>,
    labels: Option<Labels>,
    annotations: Option<Labels>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<IgnoredAny>,
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(rename = "generateName")]
    _generate_name: Option<IgnoredAny>,
    #[serde(rename = "generation")]
    _generation: Option<IgnoredAny>,
    #[serde(rename = "resourceVersion")]
    _resource_version: Option<IgnoredAny>,
    #[serde(rename = "selfLink")]
    _self_link: Option<IgnoredAny>,
    #[serde(rename = "deletionGracePeriodSeconds")]
    _grace_period: Option<IgnoredAny>,
    #[serde(rename = "finalizers")]
    _finalizers: Option<IgnoredAny>,
    #[serde(rename = "managedFields")]
    _managed_fields: Option<IgnoredAny>,
    #[serde(rename = "clusterName")]
    _cluster_name: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct OwnerReference {
    kind: Arc<str>,
    name: Arc<str>,
    controller: Option<bool>,
}

/// Unknown fields are refused while it is read; those of `ownerReferences` are not.
pub(super) static METADATA: Level = Level::new::<Metadata>(&[("ownerReferences", &OWNER_REFERENCE)]);
static OWNER_REFERENCE: Level = Level::new::<OwnerReference>(&[]);
/// `spec` and `status` of these are not read.
pub(super) static NAMED: Level = Level::new::<NamespaceManifest>(&[("metadata", &METADATA)]);
pub(super) static SERVICE_ACCOUNT: Level = Level::new::<ServiceAccountManifest>(&[("metadata", &METADATA)]);

impl Metadata {
    /// The core's metadata. Without a namespace an object is in `default`, as with kubectl.
    pub(super) fn into_meta(
        self,
        kind: Kind,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<Meta> {
        let namespace = match kind {
            Kind::Namespace | Kind::Node => "".into(),
            _ => self.namespace.unwrap_or_else(|| "default".into()),
        };
        let name = self.name.unwrap_or_default();
        let object = ObjectRef {
            kind,
            namespace,
            name,
            origin: Some(origin.clone()),
        };
        if object.name.is_empty() {
            errors.push(ObjectError::new(&object, "metadata.name", "is required"));
            return None;
        }
        if self
            .uid
            .as_ref()
            .is_some_and(|uid| uid.is_empty() || uid.len() > 253)
        {
            errors.push(ObjectError::new(
                &object,
                "metadata.uid",
                "is empty or longer than 253 characters; leave it out to have NAMESPACE/NAME",
            ));
            return None;
        }
        let created = match self.creation_timestamp.as_deref() {
            None => Created::default(),
            Some(text) => Created::parse(text).or_else(|| {
                let problem = format!("`{text}` is not written as 2026-01-31T12:00:00Z");
                errors.push(ObjectError::new(&object, "metadata.creationTimestamp", problem));
                None
            })?,
        };
        let labels = self.labels.unwrap_or_default();
        if matches!(kind, Kind::Namespace | Kind::Pod) {
            enrolment::check(&labels, &object, errors);
        }
        Some(Meta {
            object,
            uid: self.uid,
            labels,
            annotations: self.annotations.unwrap_or_default(),
            created,
        })
    }

    pub(super) fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub(super) fn controller(&self) -> Option<Owner> {
        let owners = self.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
        Some(Owner {
            kind: owner.kind.clone(),
            name: owner.name.clone(),
        })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NamespaceManifest {
    #[serde(default)]
    metadata: Metadata,
}

impl NamespaceManifest {
    pub(super) fn into_namespace(
        self,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<Namespace> {
        Some(Namespace {
            meta: self.metadata.into_meta(Kind::Namespace, origin, errors)?,
        })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct NodeManifest {
    #[serde(default)]
    metadata: Metadata,
}

impl NodeManifest {
    pub(super) fn into_node(self, origin: &Arc<str>, errors: &mut Vec<ObjectError>) -> Option<Node> {
        Some(Node {
            meta: self.metadata.into_meta(Kind::Node, origin, errors)?,
        })
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ServiceAccountManifest {
    #[serde(default)]
    metadata: Metadata,
}

impl ServiceAccountManifest {
    pub(super) fn into_service_account(
        self,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<ServiceAccount> {
        Some(ServiceAccount {
            meta: self.metadata.into_meta(Kind::ServiceAccount, origin, errors)?,
        })
    }
}

/// Istio's WorkloadSelector.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WorkloadSelector {
    match_labels: Given<BTreeMap<Arc<str>, Option<Arc<str>>>>,
}

impl WorkloadSelector {
    /// The selector, `None` where it selects the whole namespace.
    pub(super) fn into_selector(
        selector: Option<Self>,
        object: &ObjectRef,
        errors: &mut Vec<ObjectError>,
    ) -> Option<Selector> {
        let given = selector
            .and_then(|selector| selector.match_labels.0)
            .unwrap_or_default();
        let mut labels = Labels::new();
        for (key, value) in given {
            let Some(value) = value else {
                let problem = format!("`{key}` is null; write \"\" for a label without a value");
                errors.push(ObjectError::new(object, "spec.selector.matchLabels", problem));
                continue;
            };
            if key.is_empty() || key.contains('*') || value.contains('*') {
                let problem = format!("`{key}: {value}`: labels are compared exactly, without wildcards");
                errors.push(ObjectError::new(object, "spec.selector.matchLabels", problem));
            }
            labels.insert(key, value);
        }
        Selector::new(labels)
    }
}
