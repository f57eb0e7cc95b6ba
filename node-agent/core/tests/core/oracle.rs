//! A second, naive opinion: policies as text, compared as text, every peer tried one by one. It shares no code with
//! the core but the parsers, and knows neither indexes nor three-valued logic.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use tramline_core::authz::{
    Action, Condition, ConditionMatch, Connection, IpMatch, MatchList, Operation, Rule, ServiceAccountMatch,
    Source, StringMatch, decide,
};
use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};

use crate::make::{TRUST_DOMAIN, build, id, ip, peer_authentication, pod, policy, workload};

const NAMESPACES: &[&str] = &["demo", "demo-2", "istio-system"];
const PODS: &[(&str, &str)] = &[
    ("demo", "web"),
    ("demo", "db"),
    ("demo-2", "web"),
    ("istio-system", "web"),
];
const PORTS: &[u16] = &[80, 8080, 9090];
const FROM: &[&str] = &["10.9.0.1", "10.9.1.1", "10.8.0.1", "fd00:9::1"];
const PEERS: &[(&str, &str)] = &[("demo", "a"), ("demo-2", "a"), ("demo", "ab"), ("x", "b")];

const PRINCIPALS: &[&str] = &[
    "td.example/ns/demo/sa/a",
    "cluster.local/ns/x/sa/b",
    "td.example/ns/demo*",
    "*/sa/a",
    "*b",
    "*",
    "other/*",
];
const NAMESPACE_PATTERNS: &[&str] = &["demo", "demo*", "*-2", "*", "x", "none"];
const ACCOUNTS: &[&str] = &["a", "demo/a", "x/b", "demo-2/a"];
const BLOCKS: &[&str] = &[
    "10.9.0.0/16",
    "10.9.0.1",
    "0.0.0.0/0",
    "fd00:9::/64",
    "10.8.0.0/24",
];
const DESTINATIONS: &[&str] = &["10.0.0.0/24", "fd00::/16", "10.0.0.1"];

type Texts = (Vec<&'static str>, Vec<&'static str>);

/// One rule as text; `source` holds principals, namespaces, service accounts and address blocks, each with its twin.
#[derive(Debug, Clone)]
struct TextRule {
    from: Vec<[Texts; 4]>,
    to: Vec<(Vec<u16>, Vec<u16>)>,
    when: Vec<(&'static str, Texts)>,
}

#[derive(Debug, Clone)]
struct TextPolicy {
    namespace: &'static str,
    selector: Option<&'static str>,
    deny: bool,
    rules: Vec<TextRule>,
}

#[derive(Debug, Clone)]
struct TextMtls {
    namespace: &'static str,
    selector: Option<&'static str>,
    mode: Mode,
    ports: Vec<(u16, Mode)>,
}

fn texts(of: &'static [&'static str]) -> impl Strategy<Value = Texts> {
    let some = move || prop_oneof![3 => Just(vec![]), 2 => subsequence(of, 1..=2)];
    (some(), some())
}

fn rule() -> impl Strategy<Value = TextRule> {
    let source = (
        texts(PRINCIPALS),
        texts(NAMESPACE_PATTERNS),
        texts(ACCOUNTS),
        texts(BLOCKS),
    )
        .prop_map(|(principals, namespaces, accounts, blocks)| [principals, namespaces, accounts, blocks]);
    let some_ports = || prop_oneof![2 => Just(vec![]), 1 => subsequence(PORTS, 1..=2)];
    let when = prop_oneof![
        (Just("source.ip"), texts(BLOCKS)),
        (Just("source.namespace"), texts(NAMESPACE_PATTERNS)),
        (Just("source.principal"), texts(PRINCIPALS)),
        (Just("source.serviceAccount"), texts(ACCOUNTS)),
        (Just("destination.ip"), texts(DESTINATIONS)),
        (Just("destination.port"), texts(&["80", "9090"])),
    ];
    let from = prop_oneof![1 => Just(vec![]), 2 => prop::collection::vec(source, 1..3)];
    let to = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec((some_ports(), some_ports()), 1..3)];
    let when = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(when, 1..3)];
    (from, to, when).prop_map(|(from, to, when)| TextRule { from, to, when })
}

fn selector() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, None, Some("web"), Some("db")])
}

fn policies() -> impl Strategy<Value = Vec<TextPolicy>> {
    let one = (
        select(NAMESPACES),
        selector(),
        any::<bool>(),
        prop::collection::vec(rule(), 0..3),
    )
        .prop_map(|(namespace, selector, deny, rules)| TextPolicy {
            namespace,
            selector,
            deny,
            rules,
        });
    prop::collection::vec(one, 0..5)
}

fn mtls() -> impl Strategy<Value = Vec<TextMtls>> {
    let mode = || select(vec![Mode::Unset, Mode::Permissive, Mode::Strict]);
    let ports = prop::collection::btree_map(select(PORTS), mode(), 0..3);
    let one =
        (select(NAMESPACES), selector(), mode(), ports).prop_map(|(namespace, selector, mode, ports)| {
            // What the core refuses is not what is compared here.
            let selector = selector.filter(|_| namespace != "istio-system");
            let ports = ports.into_iter().filter(|_| selector.is_some()).collect();
            TextMtls {
                namespace,
                selector,
                mode,
                ports,
            }
        });
    prop::collection::vec(one, 0..4)
}

fn core(policies: &[TextPolicy], mtls: &[TextMtls]) -> Mesh {
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
        Rule {
            from: rule
                .from
                .iter()
                .map(|[principals, namespaces, accounts, blocks]| Source {
                    principals: list(principals, principal),
                    namespaces: list(namespaces, in_namespace),
                    service_accounts: list(accounts, account),
                    ip_blocks: list(blocks, block),
                })
                .collect(),
            to: rule
                .to
                .iter()
                .map(|(any, none)| Operation {
                    ports: MatchList {
                        any: any.clone(),
                        none: none.clone(),
                    },
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
                    "destination.ip" => ConditionMatch::DestinationIp(list(values, block)),
                    _ => ConditionMatch::DestinationPort(list(values, |text| Operation::port(text).unwrap())),
                })
                .map(|matches| Condition { matches })
                .collect(),
        }
    };
    let authorization_policies = policies.iter().enumerate().map(|(index, p)| {
        let action = if p.deny { Action::Deny } else { Action::Allow };
        let rules = p.rules.iter().map(|r| rule(r, p.namespace)).collect();
        policy(p.namespace, &format!("p{index}"), action, p.selector, rules)
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
    build(Objects {
        pods: pods.collect(),
        authorization_policies: authorization_policies.collect(),
        peer_authentications: peer_authentications.collect(),
        ..Objects::default()
    })
}

/// A connection as text.
#[derive(Debug, Clone, Copy)]
struct Naive {
    peer: Option<(&'static str, &'static str)>,
    from: IpAddr,
    to: IpAddr,
    port: u16,
}

impl Naive {
    fn allowed(&self, pod: (&str, &str), policies: &[TextPolicy], mtls: &[TextMtls]) -> bool {
        if self.peer.is_none() && is_strict(pod, self.port, mtls) {
            return false;
        }
        let applies = |p: &&TextPolicy| {
            (p.namespace == "istio-system" || p.namespace == pod.0)
                && p.selector.is_none_or(|app| app == pod.1)
        };
        let matched = |p: &TextPolicy| p.rules.iter().any(|rule| self.rule(rule, p.namespace));
        let mine: Vec<&TextPolicy> = policies.iter().filter(applies).collect();
        if mine.iter().any(|p| p.deny && matched(p)) {
            return false;
        }
        let mut allows = mine.iter().filter(|p| !p.deny).peekable();
        allows.peek().is_none() || allows.any(|p| matched(p))
    }

    fn rule(&self, rule: &TextRule, namespace: &str) -> bool {
        (rule.from.is_empty() || rule.from.iter().any(|source| self.source(source, namespace)))
            && (rule.to.is_empty()
                || rule.to.iter().any(|(any, none)| {
                    (any.is_empty() || any.contains(&self.port)) && !none.contains(&self.port)
                }))
            && rule
                .when
                .iter()
                .all(|(key, texts)| self.field(key, texts, namespace))
    }

    fn source(&self, [principals, namespaces, accounts, blocks]: &[Texts; 4], namespace: &str) -> bool {
        self.field("source.principal", principals, namespace)
            && self.field("source.namespace", namespaces, namespace)
            && self.field("source.serviceAccount", accounts, namespace)
            && self.field("source.ip", blocks, namespace)
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

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => {
            text.len() >= before.len() + after.len() && text.starts_with(before) && text.ends_with(after)
        }
    }
}

fn is_strict(pod: (&str, &str), port: u16, mtls: &[TextMtls]) -> bool {
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

fn peers() -> impl Iterator<Item = Option<(&'static str, &'static str)>> {
    PEERS.iter().copied().map(Some).chain([None])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn decisions_and_the_kernels_table_are_what_the_naive_reading_says(policies in policies(), mtls in mtls()) {
        let mesh = core(&policies, &mtls);
        for (index, pod) in PODS.iter().enumerate() {
            let destination = workload(&mesh, &format!("{}/{}", pod.0, pod.1));
            let addresses = [ip(&format!("10.0.0.{}", index + 1)), ip(&format!("fd00::{}", index + 1))];
            let table = table(&mesh, destination);
            // 1234 is named by no policy.
            for port in PORTS.iter().copied().chain([1234]) {
                let mut plaintext = Vec::new();
                for (peer, from, to) in peers()
                    .flat_map(|peer| FROM.iter().map(move |from| (peer, ip(from))))
                    .flat_map(|(peer, from)| addresses.map(|to| (peer, from, to)))
                {
                    let naive = Naive { peer, from, to, port }.allowed(*pod, &policies, &mtls);
                    let source = peer.map(|(namespace, account)| id(namespace, account));
                    let connection = Connection {
                        source: source.as_ref(),
                        source_address: from,
                        destination,
                        destination_address: (to, port).into(),
                    };
                    let decision = decide(&mesh, &connection);
                    prop_assert_eq!(decision.is_allow(), naive, "{:?} {:?} {} {} {} {}", pod, peer, from, to, port, decision);
                    if peer.is_none() {
                        plaintext.push(naive);
                    }
                }
                let projected = verdict(&mesh, destination, port);
                let in_table = table.ports.get(&port).copied().unwrap_or(table.default);
                prop_assert_eq!(projected, in_table);
                match projected {
                    PlaintextVerdict::Pass => prop_assert!(plaintext.iter().all(|allowed| *allowed)),
                    PlaintextVerdict::Drop => prop_assert!(plaintext.iter().all(|allowed| !*allowed)),
                    PlaintextVerdict::Ask => {}
                }
                // `Ask` costs an agent: it may only appear where some address is looked at.
                let by_address = policies.iter().flat_map(|p| &p.rules).any(|rule| {
                    rule.from.iter().any(|source| !source[3].0.is_empty() || !source[3].1.is_empty())
                        || rule.when.iter().any(|(key, _)| key.ends_with(".ip"))
                });
                prop_assert!(by_address || projected != PlaintextVerdict::Ask);
            }
        }
    }
}
