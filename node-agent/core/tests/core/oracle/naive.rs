//! The naive reading: policies and connections as text, and what the standard's sentences make of them. The fuzz target
//! `policy` (tests/fuzz) uses this file too.

use std::net::IpAddr;

use ipnet::IpNet;
use tramline_core::authz::{
    Action, Condition, ConditionMatch, IpMatch, MatchList, Operation, Rule, ServiceAccountMatch, Source,
    StringMatch,
};
use tramline_core::mesh::Mesh;
use tramline_core::object::{Objects, Pod};
use tramline_core::peer_authentication::Mode;

use crate::make::{TRUST_DOMAIN, build, labels, peer_authentication, pod, policy};

pub(crate) const NAMESPACES: &[&str] = &["demo", "demo-2", "istio-system"];
pub(crate) const PODS: &[(&str, &str)] = &[
    ("demo", "web"),
    ("demo", "db"),
    ("demo-2", "web"),
    ("istio-system", "web"),
];
pub(crate) const PORTS: &[u16] = &[80, 8080, 9090];
pub(crate) const FROM: &[&str] = &["10.9.0.1", "10.9.1.1", "10.8.0.1", "fd00:9::1"];
pub(crate) const PEERS: &[(&str, &str)] = &[("demo", "a"), ("demo-2", "a"), ("demo", "ab"), ("x", "b")];

pub(crate) const PRINCIPALS: &[&str] = &[
    "td.example/ns/demo/sa/a",
    "cluster.local/ns/x/sa/b",
    "td.example/ns/demo*",
    "*/sa/a",
    "*b",
    "*",
    "other/*",
];
pub(crate) const NAMESPACE_PATTERNS: &[&str] = &["demo", "demo*", "*-2", "*", "x", "none"];
pub(crate) const ACCOUNTS: &[&str] = &["a", "demo/a", "x/b", "demo-2/a"];
pub(crate) const BLOCKS: &[&str] = &[
    "10.9.0.0/16",
    "10.9.0.1",
    "0.0.0.0/0",
    "fd00:9::/64",
    "10.8.0.0/24",
];
pub(crate) const DOMAINS: &[&str] = &["td.example", "cluster.local", "td*", "*.example", "*", "other"];
pub(crate) const DESTINATIONS: &[&str] = &["10.0.0.0/24", "fd00::/16", "10.0.0.1"];

pub(crate) type Texts = (Vec<&'static str>, Vec<&'static str>);

/// One rule as text; `source` holds principals, namespaces, service accounts, address blocks and trust domains, each
/// with its twin, and whether it asks for HTTP.
#[derive(Debug, Clone)]
pub(crate) struct TextRule {
    pub(crate) from: Vec<([Texts; 5], bool)>,
    pub(crate) to: Vec<(Vec<u16>, Vec<u16>, bool)>,
    pub(crate) when: Vec<(&'static str, Texts)>,
}

#[derive(Debug, Clone)]
pub(crate) struct TextPolicy {
    pub(crate) namespace: &'static str,
    pub(crate) selector: Option<&'static str>,
    pub(crate) action: Action,
    pub(crate) dry_run: bool,
    pub(crate) rules: Vec<TextRule>,
}

#[derive(Debug, Clone)]
pub(crate) struct TextMtls {
    pub(crate) namespace: &'static str,
    pub(crate) selector: Option<&'static str>,
    pub(crate) mode: Mode,
    pub(crate) ports: Vec<(u16, Mode)>,
}

pub(crate) fn core(policies: &[TextPolicy], mtls: &[TextMtls]) -> Mesh {
    build(objects(policies, mtls))
}

/// The same for the core. Policies are called `p0`, `m0` and so on, by their places.
pub(crate) fn objects(policies: &[TextPolicy], mtls: &[TextMtls]) -> Objects {
    fn list<T>(texts: &Texts, parse: impl Fn(&str) -> T) -> MatchList<T> {
        let parse = |texts: &[&'static str]| texts.iter().map(|text| parse(text)).collect();
        MatchList {
            any: parse(&texts.0),
            none: parse(&texts.1),
        }
    }
    let rule = |rule: &TextRule, namespace: &str| {
        let principal = |text: &str| StringMatch::principal(text).unwrap();
        let in_namespace = |text: &str| StringMatch::namespace(text).unwrap();
        let account = |text: &str| ServiceAccountMatch::parse(text, namespace).unwrap();
        let block = |text: &str| IpMatch::parse(text).unwrap();
        let domain = |text: &str| StringMatch::trust_domain(text).unwrap();
        Rule {
            from: rule
                .from
                .iter()
                .map(
                    |([principals, namespaces, accounts, blocks, domains], http)| Source {
                        principals: list(principals, principal),
                        namespaces: list(namespaces, in_namespace),
                        service_accounts: list(accounts, account),
                        trust_domains: list(domains, domain),
                        ip_blocks: list(blocks, block),
                        http: http.then_some("requestPrincipals").into_iter().collect(),
                    },
                )
                .collect(),
            to: rule
                .to
                .iter()
                .map(|(any, none, http)| Operation {
                    ports: MatchList {
                        any: any.clone(),
                        none: none.clone(),
                    },
                    http: http.then_some("methods").into_iter().collect(),
                })
                .collect(),
            when: rule
                .when
                .iter()
                .map(|(key, values)| match *key {
                    "source.ip" => ConditionMatch::SourceIp(list(values, block)),
                    "source.namespace" => ConditionMatch::SourceNamespace(list(values, in_namespace)),
                    "source.principal" => ConditionMatch::SourcePrincipal(list(values, principal)),
                    "source.serviceAccount" => ConditionMatch::SourceServiceAccount(list(values, account)),
                    "source.trustDomain" => ConditionMatch::SourceTrustDomain(list(values, domain)),
                    "request.headers[x]" => ConditionMatch::Http((*key).into()),
                    "destination.ip" => ConditionMatch::DestinationIp(list(values, block)),
                    _ => ConditionMatch::DestinationPort(list(values, |text| Operation::port(text).unwrap())),
                })
                .map(|matches| Condition { matches })
                .collect(),
        }
    };
    let authorization_policies = policies.iter().enumerate().map(|(index, p)| {
        let rules = p.rules.iter().map(|r| rule(r, p.namespace)).collect();
        let mut policy = policy(p.namespace, &format!("p{index}"), p.action, p.selector, rules);
        policy.dry_run = p.dry_run;
        policy
    });
    let peer_authentications = mtls.iter().enumerate().map(|(index, p)| {
        peer_authentication(p.namespace, &format!("m{index}"), p.selector, p.mode, &p.ports)
    });
    let pods = PODS.iter().enumerate().map(|(index, (namespace, name))| {
        pod(
            namespace,
            name,
            &[&format!("10.0.0.{}", index + 1), &format!("fd00::{}", index + 1)],
        )
    });
    Objects {
        pods: pods.map(enrolled).collect(),
        authorization_policies: authorization_policies.collect(),
        peer_authentications: peer_authentications.collect(),
        ..Objects::default()
    }
}

fn enrolled(mut pod: Pod) -> Pod {
    let app = pod.meta.object.name.to_string();
    pod.meta.labels = labels(&[("app", &app), ("istio.io/dataplane-mode", "tramline")]);
    pod
}

/// A connection as text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Naive {
    pub(crate) peer: Option<(&'static str, &'static str)>,
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) port: u16,
}

impl Naive {
    /// `trial`: as if dry-run policies were enforced.
    pub(crate) fn allowed(
        &self,
        pod: (&str, &str),
        policies: &[TextPolicy],
        mtls: &[TextMtls],
        trial: bool,
    ) -> bool {
        if self.peer.is_none() && is_strict(pod, self.port, mtls) {
            return false;
        }
        let applies = |p: &&TextPolicy| {
            (p.namespace == "istio-system" || p.namespace == pod.0)
                && p.selector.is_none_or(|app| app == pod.1)
                && (trial || !p.dry_run)
        };
        let mine: Vec<&TextPolicy> = policies.iter().filter(applies).collect();
        let matched = |action: Action| {
            mine.iter()
                .filter(|p| p.action == action)
                .any(|p| p.rules.iter().any(|rule| self.rule(rule, p.namespace, action)))
        };
        if matched(Action::Custom) || matched(Action::Deny) {
            return false;
        }
        mine.iter().all(|p| p.action != Action::Allow) || matched(Action::Allow)
    }

    fn rule(&self, rule: &TextRule, namespace: &str, action: Action) -> bool {
        let http = rule.from.iter().any(|(_, http)| *http)
            || rule.to.iter().any(|(.., http)| *http)
            || rule.when.iter().any(|(key, _)| key.starts_with("request."));
        if http && action == Action::Allow {
            return false;
        }
        (rule.from.is_empty() || rule.from.iter().any(|(source, _)| self.source(source, namespace)))
            && (rule.to.is_empty()
                || rule.to.iter().any(|(any, none, _)| {
                    (any.is_empty() || any.contains(&self.port)) && !none.contains(&self.port)
                }))
            && rule
                .when
                .iter()
                .filter(|(key, _)| !key.starts_with("request."))
                .all(|(key, texts)| self.field(key, texts, namespace))
    }

    fn source(
        &self,
        [principals, namespaces, accounts, blocks, domains]: &[Texts; 5],
        namespace: &str,
    ) -> bool {
        self.field("source.principal", principals, namespace)
            && self.field("source.namespace", namespaces, namespace)
            && self.field("source.serviceAccount", accounts, namespace)
            && self.field("source.ip", blocks, namespace)
            && self.field("source.trustDomain", domains, namespace)
    }

    fn field(&self, key: &str, (any, none): &Texts, namespace: &str) -> bool {
        (any.is_empty() || any.iter().any(|text| self.value(key, text, namespace)))
            && !none.iter().any(|text| self.value(key, text, namespace))
    }

    fn value(&self, key: &str, pattern: &str, namespace: &str) -> bool {
        let within = |address: IpAddr| match pattern.parse::<IpNet>() {
            Ok(net) => net.contains(&address),
            Err(_) => pattern.parse::<IpAddr>().unwrap() == address,
        };
        match (key, self.peer) {
            ("source.ip", _) => within(self.from),
            ("destination.ip", _) => within(self.to),
            ("destination.port", _) => pattern == self.port.to_string(),
            (_, None) => false,
            ("source.namespace", Some((ns, _))) => glob(pattern, ns),
            ("source.trustDomain", Some(_)) => glob(
                if pattern == "cluster.local" {
                    TRUST_DOMAIN
                } else {
                    pattern
                },
                TRUST_DOMAIN,
            ),
            ("source.principal", Some((ns, sa))) => {
                let pattern = pattern.replace("cluster.local/", &format!("{TRUST_DOMAIN}/"));
                glob(&pattern, &format!("{TRUST_DOMAIN}/ns/{ns}/sa/{sa}"))
            }
            (_, Some((ns, sa))) => {
                let full = if pattern.contains('/') {
                    pattern.into()
                } else {
                    format!("{namespace}/{pattern}")
                };
                full == format!("{ns}/{sa}")
            }
        }
    }
}

pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    }
}

pub(crate) fn is_strict(pod: (&str, &str), port: u16, mtls: &[TextMtls]) -> bool {
    // All have the same age, and their names are their positions: the first wins.
    let first = |namespace: &str, selector: Option<&str>| {
        mtls.iter()
            .find(|p| p.namespace == namespace && p.selector == selector)
    };
    let own = first(pod.0, Some(pod.1));
    let on_port = own
        .and_then(|p| p.ports.iter().find(|(number, _)| *number == port))
        .map(|(_, mode)| *mode);
    let levels = [
        on_port,
        own.map(|p| p.mode),
        first(pod.0, None).map(|p| p.mode),
        first("istio-system", None).map(|p| p.mode),
    ];
    levels.into_iter().flatten().find(|mode| *mode != Mode::Unset) == Some(Mode::Strict)
}

pub(crate) fn peers() -> impl Iterator<Item = Option<(&'static str, &'static str)>> {
    PEERS.iter().copied().map(Some).chain([None])
}
