//! A second, naive opinion: policies as text, compared as text, every peer tried one by one. It shares no code with
//! the core but the parsers, and knows neither indexes nor three-valued logic.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestCaseError;
use tramline_core::authz::{
    Action, Condition, ConditionMatch, Connection, IpMatch, MatchList, Operation, Rule, ServiceAccountMatch,
    Source, StringMatch, decide, dry_run, explain,
};
use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};
use tramline_core::verdict::{KernelVerdict, kernel_verdict};
use tramline_core::workload::Workload;

use crate::explain::assert_consistent;
use crate::make::{TRUST_DOMAIN, build, id, ip, labels, peer_authentication, pod, policy, workload};

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
const DOMAINS: &[&str] = &["td.example", "cluster.local", "td*", "*.example", "*", "other"];
const DESTINATIONS: &[&str] = &["10.0.0.0/24", "fd00::/16", "10.0.0.1"];

type Texts = (Vec<&'static str>, Vec<&'static str>);

/// One rule as text; `source` holds principals, namespaces, service accounts, address blocks and trust domains, each
/// with its twin, and whether it asks for HTTP.
#[derive(Debug, Clone)]
struct TextRule {
    from: Vec<([Texts; 5], bool)>,
    to: Vec<(Vec<u16>, Vec<u16>, bool)>,
    when: Vec<(&'static str, Texts)>,
}

#[derive(Debug, Clone)]
struct TextPolicy {
    namespace: &'static str,
    selector: Option<&'static str>,
    action: Action,
    dry_run: bool,
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
        texts(DOMAINS),
    )
        .prop_map(|(principals, namespaces, accounts, blocks, domains)| {
            [principals, namespaces, accounts, blocks, domains]
        });
    let http = || prop::bool::weighted(0.1);
    let some_ports = || prop_oneof![2 => Just(vec![]), 1 => subsequence(PORTS, 1..=2)];
    let when = prop_oneof![
        (Just("source.ip"), texts(BLOCKS)),
        (Just("source.namespace"), texts(NAMESPACE_PATTERNS)),
        (Just("source.principal"), texts(PRINCIPALS)),
        (Just("source.serviceAccount"), texts(ACCOUNTS)),
        (Just("destination.ip"), texts(DESTINATIONS)),
        (Just("destination.port"), texts(&["80", "9090"])),
        (Just("source.trustDomain"), texts(DOMAINS)),
        Just(("request.headers[x]", (vec!["y"], vec![]))),
    ];
    let from = prop_oneof![1 => Just(vec![]), 2 => prop::collection::vec((source, http()), 1..3)];
    let to = prop_oneof![1 => Just(vec![]), 1 => prop::collection::vec((some_ports(), some_ports(), http()), 1..3)];
    let when = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(when, 1..3)];
    (from, to, when).prop_map(|(from, to, when)| TextRule { from, to, when })
}

fn selector() -> impl Strategy<Value = Option<&'static str>> {
    select(vec![None, None, Some("web"), Some("db")])
}

fn policies(rules: std::ops::Range<usize>) -> impl Strategy<Value = Vec<TextPolicy>> {
    let one = (
        select(NAMESPACES),
        selector(),
        select(vec![
            Action::Allow,
            Action::Allow,
            Action::Allow,
            Action::Deny,
            Action::Deny,
            Action::Custom,
            Action::Audit,
        ]),
        prop::bool::weighted(0.2),
        prop::collection::vec(rule(), rules),
    )
        .prop_map(|(namespace, selector, action, dry_run, rules)| TextPolicy {
            namespace,
            selector,
            action,
            dry_run,
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
    build(objects(policies, mtls))
}

/// The same for the core. Policies are called `p0`, `m0` and so on, by their places.
fn objects(policies: &[TextPolicy], mtls: &[TextMtls]) -> Objects {
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
    let pods = pods.map(|mut pod| {
        let app = pod.meta.object.name.to_string();
        pod.meta.labels = labels(&[("app", &app), ("istio.io/dataplane-mode", "tramline")]);
        pod
    });
    Objects {
        pods: pods.collect(),
        authorization_policies: authorization_policies.collect(),
        peer_authentications: peer_authentications.collect(),
        ..Objects::default()
    }
}

/// Objects of two moments that have the same pods; half of these are on another node.
pub(crate) fn two_moments() -> impl Strategy<Value = (Objects, Objects)> {
    let moment = || (policies(0..3), mtls()).prop_map(|(policies, mtls)| objects(&policies, &mtls));
    (moment(), moment()).prop_map(|(mut first, mut second)| {
        for pod in first.pods.iter_mut().chain(&mut second.pods) {
            if &*pod.meta.object.name == "db" {
                pod.node = "n2".into();
            }
        }
        (first, second)
    })
}

/// Every connection that the policies of [`two_moments`] tell apart, to every pod.
pub(crate) fn decisions(mesh: &Mesh) -> Vec<String> {
    let mut decisions = Vec::new();
    for (namespace, name) in PODS {
        let destination = workload(mesh, &format!("{namespace}/{name}"));
        for peer in peers() {
            let source = peer.map(|(namespace, account)| id(namespace, account));
            for (from, port) in FROM
                .iter()
                .flat_map(|from| PORTS.iter().map(move |port| (from, *port)))
            {
                let connection = Connection {
                    source: source.as_ref(),
                    source_address: ip(from),
                    destination,
                    destination_address: (destination.addresses[0], port).into(),
                };
                decisions.push(format!("{:?}", explain(mesh, &connection)));
            }
        }
        decisions.push(format!("{:?}", table(mesh, destination)));
    }
    decisions
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
    /// `trial`: as if dry-run policies were enforced.
    fn allowed(&self, pod: (&str, &str), policies: &[TextPolicy], mtls: &[TextMtls], trial: bool) -> bool {
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

/// What the kernel may do by itself is what the core would do, whatever address a client has; and it may wherever no
/// policy looks at addresses.
fn assert_kernel_follows(
    mesh: &Mesh,
    destination: &Workload,
    port: u16,
    policies: &[TextPolicy],
) -> Result<(), TestCaseError> {
    let by_address = policies.iter().flat_map(|p| &p.rules).any(|rule| {
        rule.from
            .iter()
            .any(|(source, _)| !source[3].0.is_empty() || !source[3].1.is_empty())
            || rule.when.iter().any(|(key, _)| *key == "source.ip")
    });
    for (address, (namespace, name)) in destination
        .addresses
        .iter()
        .flat_map(|address| PODS.iter().map(move |pod| (*address, pod)))
    {
        let source = workload(mesh, &format!("{namespace}/{name}"));
        let dialled = (address, port).into();
        let kernel = kernel_verdict(mesh, source, dialled);
        if source.uid == destination.uid {
            prop_assert_eq!(kernel, None, "a pod's own address is not its business");
            continue;
        }
        let decided = FROM.iter().map(|from| {
            let connection = Connection {
                source: Some(&source.identity),
                source_address: ip(from),
                destination,
                destination_address: dialled,
            };
            decide(mesh, &connection).is_allow()
        });
        let mut decided = decided;
        match kernel {
            Some(KernelVerdict::Direct(to)) => {
                prop_assert_eq!(&to.uid, &destination.uid);
                prop_assert!(decided.all(|allowed| allowed));
            }
            Some(KernelVerdict::Deny(to)) => {
                prop_assert_eq!(&to.uid, &destination.uid);
                prop_assert!(decided.all(|allowed| !allowed));
            }
            Some(KernelVerdict::Outside) => prop_assert!(false, "a pod of the mesh"),
            None => prop_assert!(by_address, "nobody asks for an address"),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn decisions_and_the_kernels_table_are_what_the_naive_reading_says(policies in policies(0..3), mtls in mtls()) {
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
                    let naive = Naive { peer, from, to, port };
                    let trial = naive.allowed(*pod, &policies, &mtls, true);
                    let naive = naive.allowed(*pod, &policies, &mtls, false);
                    let source = peer.map(|(namespace, account)| id(namespace, account));
                    let connection = Connection {
                        source: source.as_ref(),
                        source_address: from,
                        destination,
                        destination_address: (to, port).into(),
                    };
                    let decision = decide(&mesh, &connection);
                    prop_assert_eq!(decision.is_allow(), naive, "{:?} {:?} {} {} {} {}", pod, peer, from, to, port, decision);
                    match dry_run(&mesh, &connection) {
                        Some(dry_run) => prop_assert_eq!(dry_run.is_allow(), trial, "{}", dry_run),
                        None => prop_assert_eq!(naive, trial),
                    }
                    assert_consistent(&explain(&mesh, &connection), &decision);
                    if peer.is_none() {
                        plaintext.push(naive);
                    }
                }
                assert_kernel_follows(&mesh, destination, port, &policies)?;
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
                    rule.from.iter().any(|(source, _)| !source[3].0.is_empty() || !source[3].1.is_empty())
                        || rule.when.iter().any(|(key, _)| key.ends_with(".ip"))
                });
                prop_assert!(by_address || projected != PlaintextVerdict::Ask);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Enough rules for every table of the index, and for filing again within one.
    #[test]
    fn the_index_finds_the_rule_that_asking_in_order_finds(policies in policies(0..60)) {
        let mesh = core(&policies, &[]);
        let destination = workload(&mesh, "demo/web");
        for peer in peers() {
            let source = peer.map(|(namespace, account)| id(namespace, account));
            for (from, to, port) in FROM.iter().flat_map(|from| {
                [("10.0.0.1", 80), ("10.0.0.1", 1234), ("fd00::1", 8080)].map(|(to, port)| (ip(from), ip(to), port))
            }) {
                let naive = Naive { peer, from, to, port };
                let connection = Connection {
                    source: source.as_ref(),
                    source_address: from,
                    destination,
                    destination_address: (to, port).into(),
                };
                let decision = decide(&mesh, &connection);
                prop_assert_eq!(decision.is_allow(), naive.allowed(PODS[0], &policies, &[], false), "{}", decision);
                // The explanation asks every rule in order, without an index.
                assert_consistent(&explain(&mesh, &connection), &decision);
            }
        }
    }
}
