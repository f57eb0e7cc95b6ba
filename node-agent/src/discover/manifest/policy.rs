//! security.istio.io AuthorizationPolicy.
//!
//! Everything that Istio has is read; a field that Istio does not have is an error. What of it cannot be enforced, and
//! how it counts then, is said by [`tramline_core::authz::PolicyStatus`].

mod fields;

use std::sync::Arc;

use tramline_core::authz::{
    Action, AuthorizationPolicy, Condition, ConditionMatch, IpMatch, MatchList, Operation, PatternError,
    Rule, ServiceAccountMatch, Source, StringMatch, Target, TargetKind,
};
use tramline_core::object::{Kind, ObjectError, ObjectRef};

pub(super) use self::fields::AuthorizationPolicyManifest;
use self::fields::{FromManifest, Provider, RuleManifest, TargetManifest, Texts, ToManifest, WhenManifest};
use super::given::Given;
use super::meta::WorkloadSelector;

/// Istio's bound on `from`, used for every list.
const MAX_ENTRIES: usize = 512;
/// Istio's bound on `targetRefs`.
const MAX_TARGETS: usize = 16;
/// Istio's bounds on `serviceAccounts`.
const MAX_ACCOUNTS: usize = 16;
const MAX_ACCOUNT_LENGTH: usize = 320;
const ALONE: &str = "spec.targetRef";
const DRY_RUN: &str = "istio.io/dry-run";

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
        let dry_run = reader.dry_run(meta.annotations.get(DRY_RUN).map(AsRef::as_ref));
        let action = reader.action(spec.action.0.as_deref());
        reader.provider(action, spec.provider.0, spec.rules.is_some());
        let targets = reader.targets(spec.target_ref.0, spec.target_refs.0);
        if spec.selector.0.is_some()
            && let Some(target) = targets.first()
        {
            let other = if target.alone { ALONE } else { "spec.targetRefs" };
            let problem = format!("is given together with {other}; one of them has to go");
            reader.refuse("spec.selector", &problem);
        }
        let rules = reader.entries(spec.rules, "spec.rules", Reader::rule);
        let selector = WorkloadSelector::into_selector(spec.selector.0, &meta.object, errors);
        Some(AuthorizationPolicy {
            targets,
            dry_run,
            ..AuthorizationPolicy::new(meta, selector, action, rules)
        })
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

    /// As Go's `strconv.ParseBool` has it, which is what Istio reads this annotation with.
    fn dry_run(&mut self, value: Option<&str>) -> bool {
        match value {
            None | Some("0" | "f" | "F" | "false" | "False" | "FALSE") => false,
            Some("1" | "t" | "T" | "true" | "True" | "TRUE") => true,
            Some(other) => {
                let problem = format!("`{other}` is neither \"true\" nor \"false\"");
                self.refuse(&format!("metadata.annotations.{DRY_RUN}"), &problem);
                false
            }
        }
    }

    fn action(&mut self, action: Option<&str>) -> Action {
        match action {
            None | Some("ALLOW") => Action::Allow,
            Some("DENY") => Action::Deny,
            Some("AUDIT") => Action::Audit,
            Some("CUSTOM") => Action::Custom,
            Some(other) => {
                let problem = format!("`{other}` is none of ALLOW, DENY, AUDIT, CUSTOM");
                self.refuse("spec.action", &problem);
                Action::Deny
            }
        }
    }

    fn provider(&mut self, action: Action, provider: Option<Provider>, rules: bool) {
        let named = provider
            .as_ref()
            .and_then(|provider| provider.name.0.as_deref())
            .is_some_and(|name| !name.is_empty());
        match (action, &provider) {
            (Action::Custom, _) if !named => {
                self.refuse("spec.provider.name", "is required with action CUSTOM");
            }
            (Action::Custom, _) if !rules => {
                self.refuse(
                    "spec.rules",
                    "is required with action CUSTOM; `[{}]` matches everything",
                );
            }
            (Action::Allow | Action::Deny, Some(_)) => {
                self.refuse("spec.provider", "goes only with action CUSTOM or AUDIT");
            }
            _ => {}
        }
    }

    fn targets(
        &mut self,
        one: Option<TargetManifest>,
        many: Option<Vec<Option<TargetManifest>>>,
    ) -> Vec<Target> {
        let many = many.unwrap_or_default();
        if one.is_some() && !many.is_empty() {
            self.refuse(
                ALONE,
                "is given together with spec.targetRefs; write all of them there",
            );
        }
        if many.len() > MAX_TARGETS {
            self.refuse("spec.targetRefs", &format!("has more than {MAX_TARGETS} entries"));
            return Vec::new();
        }
        let one = one.and_then(|target| self.target(target, ALONE));
        let mut targets = self.entries(Some(many), "spec.targetRefs", Self::target);
        targets.extend(one);
        targets
    }

    fn target(&mut self, target: TargetManifest, field: &str) -> Option<Target> {
        let before = self.errors.len();
        let kind = match (target.group.as_deref().unwrap_or_default(), target.kind.as_str()) {
            ("gateway.networking.k8s.io", "Gateway") => Some(TargetKind::Gateway),
            ("gateway.networking.k8s.io", "GatewayClass") => Some(TargetKind::GatewayClass),
            ("" | "core", "Service") => Some(TargetKind::Service),
            ("networking.istio.io", "ServiceEntry") => Some(TargetKind::ServiceEntry),
            (group, kind) => {
                let problem = format!(
                    "`{kind}` of group `{group}` is no target; those that are: Service of group \"\", Gateway and \
                     GatewayClass of gateway.networking.k8s.io, ServiceEntry of networking.istio.io"
                );
                self.refuse(&format!("{field}.kind"), &problem);
                None
            }
        };
        if target.name.is_empty() {
            self.refuse(&format!("{field}.name"), "is empty");
        }
        if target
            .namespace
            .is_some_and(|namespace| !namespace.is_empty() && *namespace != *self.object.namespace)
        {
            self.refuse(
                &format!("{field}.namespace"),
                "has to be the namespace of the policy",
            );
        }
        let name = target.name;
        kind.filter(|_| self.errors.len() == before).map(|kind| Target {
            kind,
            name,
            alone: field == ALONE,
        })
    }

    /// The names of those HTTP fields that are given. Their values are nothing to anybody yet, but have to be texts.
    fn http(&mut self, field: &str, fields: Vec<(&'static str, Texts)>) -> Vec<&'static str> {
        let mut given = Vec::new();
        for (name, texts) in fields {
            let text = |text: &str| match text {
                "" => Err(PatternError::Empty),
                text => Ok(text.to_owned()),
            };
            if !self.values((texts, &format!("{field}.{name}")), text).is_empty() {
                given.push(name);
            }
        }
        given
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
                None => self.refuse(&field, "is null; remove it, or write what it should hold"),
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
            from: self.part(rule.from.0, &format!("{field}.from"), Self::source),
            to: self.part(rule.to.0, &format!("{field}.to"), Self::operation),
            when: self.part(rule.when.0, &format!("{field}.when"), Self::condition),
        })
    }

    fn source(&mut self, from: FromManifest, field: &str) -> Option<Source> {
        let field = format!("{field}.source");
        let Some(source) = from.source.0 else {
            self.refuse(&field, "is required");
            return None;
        };
        let before = self.errors.len();
        let path = |name: &str| format!("{field}.{name}");
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
            trust_domains: self.list(
                (source.trust_domains, &path("trustDomains")),
                (source.not_trust_domains, &path("notTrustDomains")),
                StringMatch::trust_domain,
            ),
            ip_blocks: self.list(
                (source.ip_blocks, &path("ipBlocks")),
                (source.not_ip_blocks, &path("notIpBlocks")),
                IpMatch::parse,
            ),
            http: self.http(
                &field,
                vec![
                    ("requestPrincipals", source.request_principals),
                    ("notRequestPrincipals", source.not_request_principals),
                    ("remoteIpBlocks", source.remote_ip_blocks),
                    ("notRemoteIpBlocks", source.not_remote_ip_blocks),
                ],
            ),
        };
        let Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            http,
        } = &made;
        self.check_accounts(service_accounts, &path("serviceAccounts"));
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
            && trust_domains.is_empty()
            && ip_blocks.is_empty()
            && http.is_empty();
        if empty && self.errors.len() == before {
            self.refuse(&field, "needs at least one field with at least one value");
        }
        Some(made)
    }

    fn check_accounts(&mut self, accounts: &MatchList<ServiceAccountMatch>, field: &str) {
        for list in [&accounts.any, &accounts.none] {
            if list.len() > MAX_ACCOUNTS {
                self.refuse(field, &format!("has more than {MAX_ACCOUNTS} entries"));
            }
            if list
                .iter()
                .any(|account| account.to_string().len() > MAX_ACCOUNT_LENGTH)
            {
                self.refuse(
                    field,
                    &format!("has an entry of more than {MAX_ACCOUNT_LENGTH} characters"),
                );
            }
        }
    }

    fn operation(&mut self, to: ToManifest, field: &str) -> Option<Operation> {
        let field = format!("{field}.operation");
        let Some(operation) = to.operation.0 else {
            self.refuse(&field, "is required");
            return None;
        };
        let before = self.errors.len();
        let http = self.http(
            &field,
            vec![
                ("hosts", operation.hosts),
                ("notHosts", operation.not_hosts),
                ("methods", operation.methods),
                ("notMethods", operation.not_methods),
                ("paths", operation.paths),
                ("notPaths", operation.not_paths),
            ],
        );
        let ports = self.list(
            (operation.ports, &format!("{field}.ports")),
            (operation.not_ports, &format!("{field}.notPorts")),
            Operation::port,
        );
        if ports.is_empty() && http.is_empty() && self.errors.len() == before {
            self.refuse(&field, "needs at least one field with at least one value");
        }
        Some(Operation { ports, http })
    }

    fn condition(&mut self, when: WhenManifest, field: &str) -> Option<Condition> {
        let before = self.errors.len();
        let (values, not_values) = (format!("{field}.values"), format!("{field}.notValues"));
        if when.values.0.as_ref().is_none_or(Vec::is_empty)
            && when.not_values.0.as_ref().is_none_or(Vec::is_empty)
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
            "source.trustDomain" => {
                ConditionMatch::SourceTrustDomain(self.list(any, none, StringMatch::trust_domain))
            }
            "destination.ip" => ConditionMatch::DestinationIp(self.list(any, none, IpMatch::parse)),
            "destination.port" => ConditionMatch::DestinationPort(self.list(any, none, Operation::port)),
            other if Condition::is_http_key(other) => {
                self.http(field, vec![("values", any.0), ("notValues", none.0)]);
                ConditionMatch::Http(other.into())
            }
            other => {
                let problem = format!(
                    "`{other}` is not a key of the standard; the keys that are decided on: {}",
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
        (Given(values), field): (Texts, &str),
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
