//! security.istio.io AuthorizationPolicy.
//!
//! Fields that exist in Istio and not here are listed and refused by name: the difference between "unknown" and "not
//! done yet" tells an operator whether to look for a typing error.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tramline_core::authz::{
    Action, AuthorizationPolicy, Condition, ConditionMatch, IpMatch, MatchList, Operation, PatternError,
    Rule, ServiceAccountMatch, Source, StringMatch,
};
use tramline_core::object::{Kind, ObjectError, ObjectRef};

use super::meta::{Metadata, WorkloadSelector};

const NEEDS_HTTP: &str =
    "needs HTTP, which is not decided on yet; the policy is refused rather than half enforced";
const NOT_YET: &str = "is not supported yet; the policy is refused rather than half enforced";
/// Istio's bound on `from`, used for every list.
const MAX_ENTRIES: usize = 512;
const DRY_RUN: &str = "istio.io/dry-run";

/// A list of texts; `null` in it is an error of its own, or YAML would hand it over as the text `null`.
type Texts = Option<Vec<Option<String>>>;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct AuthorizationPolicyManifest {
    #[serde(rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
    #[serde(rename = "status")]
    _status: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    selector: Option<WorkloadSelector>,
    action: Option<String>,
    rules: Option<Vec<Option<RuleManifest>>>,
    target_ref: Option<IgnoredAny>,
    target_refs: Option<IgnoredAny>,
    provider: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleManifest {
    from: Option<Vec<Option<FromManifest>>>,
    to: Option<Vec<Option<ToManifest>>>,
    when: Option<Vec<Option<WhenManifest>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromManifest {
    source: Option<SourceManifest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToManifest {
    operation: Option<OperationManifest>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SourceManifest {
    principals: Texts,
    not_principals: Texts,
    namespaces: Texts,
    not_namespaces: Texts,
    service_accounts: Texts,
    not_service_accounts: Texts,
    ip_blocks: Texts,
    not_ip_blocks: Texts,
    request_principals: Option<IgnoredAny>,
    not_request_principals: Option<IgnoredAny>,
    remote_ip_blocks: Option<IgnoredAny>,
    not_remote_ip_blocks: Option<IgnoredAny>,
    trust_domains: Option<IgnoredAny>,
    not_trust_domains: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OperationManifest {
    ports: Texts,
    not_ports: Texts,
    hosts: Option<IgnoredAny>,
    not_hosts: Option<IgnoredAny>,
    methods: Option<IgnoredAny>,
    not_methods: Option<IgnoredAny>,
    paths: Option<IgnoredAny>,
    not_paths: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WhenManifest {
    key: String,
    values: Texts,
    not_values: Texts,
}

impl AuthorizationPolicyManifest {
    pub(super) fn into_policy(
        self,
        origin: &Arc<str>,
        errors: &mut Vec<ObjectError>,
    ) -> Option<AuthorizationPolicy> {
        let meta = self
            .metadata
            .into_meta(Kind::AuthorizationPolicy, origin, errors)?;
        let spec = self.spec.unwrap_or_default();
        let mut reader = Reader {
            object: &meta.object,
            errors,
        };
        if meta
            .annotations
            .get(DRY_RUN)
            .is_some_and(|value| &**value != "false")
        {
            let problem = "is not supported yet; the policy is refused, since enforcing it and skipping it are both wrong";
            reader.refuse(&format!("metadata.annotations.{DRY_RUN}"), problem);
        }
        let unsupported = [
            ("spec.targetRef", spec.target_ref.is_some()),
            ("spec.targetRefs", spec.target_refs.is_some()),
            ("spec.provider", spec.provider.is_some()),
        ];
        reader.refuse_present(&unsupported, NOT_YET);
        let action = match spec.action.as_deref() {
            None | Some("ALLOW") => Action::Allow,
            Some("DENY") => Action::Deny,
            Some(other @ ("AUDIT" | "CUSTOM")) => {
                reader.refuse("spec.action", &format!("{other} {NOT_YET}"));
                Action::Deny
            }
            Some(other) => {
                reader.refuse("spec.action", &format!("`{other}` is neither ALLOW nor DENY"));
                Action::Deny
            }
        };
        let rules = reader.entries(spec.rules, "spec.rules", Reader::rule);
        let selector = WorkloadSelector::into_selector(spec.selector, &meta.object, errors);
        Some(AuthorizationPolicy::new(meta, selector, action, rules))
    }
}

/// Reads the parts of one policy, noting each error with the path of its field.
struct Reader<'a> {
    object: &'a ObjectRef,
    errors: &'a mut Vec<ObjectError>,
}

impl Reader<'_> {
    fn refuse(&mut self, field: &str, problem: &str) {
        self.errors.push(ObjectError::new(self.object, field, problem));
    }

    fn refuse_present(&mut self, fields: &[(&str, bool)], problem: &str) {
        for (field, _) in fields.iter().filter(|(_, present)| *present) {
            self.refuse(field, problem);
        }
    }

    /// The entries of a list of objects. An empty entry written as `-` alone is null, not `{}`: for a rule the one
    /// matches nothing that anybody meant, the other everything.
    fn entries<M, T>(
        &mut self,
        list: Option<Vec<Option<M>>>,
        field: &str,
        read: impl Fn(&mut Self, M, &str) -> Option<T>,
    ) -> Vec<T> {
        let list = list.unwrap_or_default();
        if list.len() > MAX_ENTRIES {
            self.refuse(field, &format!("has more than {MAX_ENTRIES} entries"));
            return Vec::new();
        }
        let mut entries = Vec::with_capacity(list.len());
        for (index, entry) in list.into_iter().enumerate() {
            let field = format!("{field}[{index}]");
            match entry {
                Some(entry) => entries.extend(read(self, entry, &field)),
                None => self.refuse(&field, "is null"),
            }
        }
        entries
    }

    /// A part of a rule that is given must say something: Istio refuses `from: []` and so on too.
    fn part<M, T>(
        &mut self,
        list: Option<Vec<Option<M>>>,
        field: &str,
        read: impl Fn(&mut Self, M, &str) -> Option<T>,
    ) -> Vec<T> {
        if list.as_ref().is_some_and(Vec::is_empty) {
            self.refuse(field, "is empty; leave it out to mean any");
        }
        self.entries(list, field, read)
    }

    #[expect(clippy::unnecessary_wraps, reason = "one of the readers that `entries` takes")]
    fn rule(&mut self, rule: RuleManifest, field: &str) -> Option<Rule> {
        Some(Rule {
            from: self.part(rule.from, &format!("{field}.from"), Self::source),
            to: self.part(rule.to, &format!("{field}.to"), Self::operation),
            when: self.part(rule.when, &format!("{field}.when"), Self::condition),
        })
    }

    fn source(&mut self, from: FromManifest, field: &str) -> Option<Source> {
        let field = format!("{field}.source");
        let Some(source) = from.source else {
            self.refuse(&field, "is required");
            return None;
        };
        let before = self.errors.len();
        let path = |name: &str| format!("{field}.{name}");
        for (name, present, problem) in [
            (
                "requestPrincipals",
                source.request_principals.is_some(),
                NEEDS_HTTP,
            ),
            (
                "notRequestPrincipals",
                source.not_request_principals.is_some(),
                NEEDS_HTTP,
            ),
            ("remoteIpBlocks", source.remote_ip_blocks.is_some(), NEEDS_HTTP),
            (
                "notRemoteIpBlocks",
                source.not_remote_ip_blocks.is_some(),
                NEEDS_HTTP,
            ),
            ("trustDomains", source.trust_domains.is_some(), NOT_YET),
            ("notTrustDomains", source.not_trust_domains.is_some(), NOT_YET),
        ] {
            self.refuse_present(&[(&path(name), present)], problem);
        }
        let namespace = self.object.namespace.clone();
        let account = |text: &str| ServiceAccountMatch::parse(text, &namespace);
        let made = Source {
            principals: self.list(
                (source.principals, &path("principals")),
                (source.not_principals, &path("notPrincipals")),
                StringMatch::principal,
            ),
            namespaces: self.list(
                (source.namespaces, &path("namespaces")),
                (source.not_namespaces, &path("notNamespaces")),
                StringMatch::namespace,
            ),
            service_accounts: self.list(
                (source.service_accounts, &path("serviceAccounts")),
                (source.not_service_accounts, &path("notServiceAccounts")),
                account,
            ),
            ip_blocks: self.list(
                (source.ip_blocks, &path("ipBlocks")),
                (source.not_ip_blocks, &path("notIpBlocks")),
                IpMatch::parse,
            ),
        };
        let Source {
            principals,
            namespaces,
            service_accounts,
            ip_blocks,
        } = &made;
        let others = !principals.is_empty() || !namespaces.is_empty();
        if others && !service_accounts.is_empty() {
            self.refuse(
                &path("serviceAccounts"),
                "excludes principals and namespaces in the same source",
            );
        }
        let empty = principals.is_empty()
            && namespaces.is_empty()
            && service_accounts.is_empty()
            && ip_blocks.is_empty();
        if empty && self.errors.len() == before {
            self.refuse(&field, "needs at least one field with at least one value");
        }
        Some(made)
    }

    fn operation(&mut self, to: ToManifest, field: &str) -> Option<Operation> {
        let field = format!("{field}.operation");
        let Some(operation) = to.operation else {
            self.refuse(&field, "is required");
            return None;
        };
        let before = self.errors.len();
        for (name, present) in [
            ("hosts", operation.hosts.is_some()),
            ("notHosts", operation.not_hosts.is_some()),
            ("methods", operation.methods.is_some()),
            ("notMethods", operation.not_methods.is_some()),
            ("paths", operation.paths.is_some()),
            ("notPaths", operation.not_paths.is_some()),
        ] {
            self.refuse_present(&[(&format!("{field}.{name}"), present)], NEEDS_HTTP);
        }
        let ports = self.list(
            (operation.ports, &format!("{field}.ports")),
            (operation.not_ports, &format!("{field}.notPorts")),
            Operation::port,
        );
        if ports.is_empty() && self.errors.len() == before {
            self.refuse(&field, "needs at least one field with at least one value");
        }
        Some(Operation { ports })
    }

    fn condition(&mut self, when: WhenManifest, field: &str) -> Option<Condition> {
        let before = self.errors.len();
        let (values, not_values) = (format!("{field}.values"), format!("{field}.notValues"));
        if when.values.as_ref().is_none_or(Vec::is_empty)
            && when.not_values.as_ref().is_none_or(Vec::is_empty)
        {
            self.refuse(field, "needs values or notValues");
        }
        let namespace = self.object.namespace.clone();
        let (any, none) = (
            (when.values, values.as_str()),
            (when.not_values, not_values.as_str()),
        );
        let matches = match when.key.as_str() {
            "source.ip" => ConditionMatch::SourceIp(self.list(any, none, IpMatch::parse)),
            "source.namespace" => {
                ConditionMatch::SourceNamespace(self.list(any, none, StringMatch::namespace))
            }
            "source.principal" => {
                ConditionMatch::SourcePrincipal(self.list(any, none, StringMatch::principal))
            }
            "source.serviceAccount" => ConditionMatch::SourceServiceAccount(
                self.list(any, none, |text| ServiceAccountMatch::parse(text, &namespace)),
            ),
            "destination.ip" => ConditionMatch::DestinationIp(self.list(any, none, IpMatch::parse)),
            "destination.port" => ConditionMatch::DestinationPort(self.list(any, none, Operation::port)),
            other => {
                let problem = format!(
                    "`{other}` is not supported; the keys that are: {}",
                    Condition::KEYS.join(", ")
                );
                self.refuse(&format!("{field}.key"), &problem);
                return None;
            }
        };
        (self.errors.len() == before).then_some(Condition { matches })
    }

    fn list<T>(
        &mut self,
        any: (Texts, &str),
        none: (Texts, &str),
        parse: impl Fn(&str) -> Result<T, PatternError>,
    ) -> MatchList<T> {
        MatchList {
            any: self.values(any, &parse),
            none: self.values(none, &parse),
        }
    }

    fn values<T>(
        &mut self,
        (values, field): (Texts, &str),
        parse: impl Fn(&str) -> Result<T, PatternError>,
    ) -> Vec<T> {
        let values = values.unwrap_or_default();
        if values.len() > MAX_ENTRIES {
            self.refuse(field, &format!("has more than {MAX_ENTRIES} entries"));
            return Vec::new();
        }
        let mut parsed = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let field = format!("{field}[{index}]");
            match value.as_deref().map(&parse) {
                Some(Ok(value)) => parsed.push(value),
                Some(Err(error)) => self.refuse(&field, &error.to_string()),
                None => self.refuse(&field, "is null; write it in quotes if that is its name"),
            }
        }
        parsed
    }
}
