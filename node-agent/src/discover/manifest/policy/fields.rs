//! The fields of an AuthorizationPolicy.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::given::Given;
use super::super::meta::{Metadata, WorkloadSelector};

/// A list of texts; `null` in it is an error of its own, or YAML would hand it over as the text `null`.
pub(super) type Texts = Given<Vec<Option<String>>>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct AuthorizationPolicyManifest {
    #[serde(rename = "apiVersion")]
    _api_version: Option<IgnoredAny>,
    #[serde(rename = "kind")]
    _kind: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    pub(super) spec: Option<Spec>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    pub(super) selector: Given<WorkloadSelector>,
    pub(super) action: Given<String>,
    pub(super) rules: Option<Vec<Option<RuleManifest>>>,
    pub(super) target_ref: Given<TargetManifest>,
    pub(super) target_refs: Given<Vec<Option<TargetManifest>>>,
    pub(super) provider: Given<Provider>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetManifest {
    #[serde(default)]
    pub(super) group: Option<String>,
    pub(super) kind: String,
    pub(super) name: Arc<str>,
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Provider {
    pub(super) name: Given<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RuleManifest {
    pub(super) from: Given<Vec<Option<FromManifest>>>,
    pub(super) to: Given<Vec<Option<ToManifest>>>,
    pub(super) when: Given<Vec<Option<WhenManifest>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct FromManifest {
    pub(super) source: Given<SourceManifest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ToManifest {
    pub(super) operation: Given<OperationManifest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SourceManifest {
    pub(super) principals: Texts,
    pub(super) not_principals: Texts,
    pub(super) namespaces: Texts,
    pub(super) not_namespaces: Texts,
    pub(super) service_accounts: Texts,
    pub(super) not_service_accounts: Texts,
    pub(super) ip_blocks: Texts,
    pub(super) not_ip_blocks: Texts,
    pub(super) request_principals: Texts,
    pub(super) not_request_principals: Texts,
    pub(super) remote_ip_blocks: Texts,
    pub(super) not_remote_ip_blocks: Texts,
    pub(super) trust_domains: Texts,
    pub(super) not_trust_domains: Texts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OperationManifest {
    pub(super) ports: Texts,
    pub(super) not_ports: Texts,
    pub(super) hosts: Texts,
    pub(super) not_hosts: Texts,
    pub(super) methods: Texts,
    pub(super) not_methods: Texts,
    pub(super) paths: Texts,
    pub(super) not_paths: Texts,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct WhenManifest {
    pub(super) key: String,
    #[serde(default)]
    pub(super) values: Texts,
    #[serde(default)]
    pub(super) not_values: Texts,
}
