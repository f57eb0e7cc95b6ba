//! A second, naive opinion: policies as text, compared as text, every peer tried one by one. It shares no code with
//! the core but the parsers, and knows neither indexes nor three-valued logic.

mod naive;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestCaseError;
use tramline_core::authz::{Action, Connection, decide, dry_run, explain};
use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};
use tramline_core::verdict::{KernelVerdict, kernel_verdict};
use tramline_core::workload::Workload;

use self::naive::{
    ACCOUNTS, BLOCKS, DESTINATIONS, DOMAINS, FROM, NAMESPACE_PATTERNS, NAMESPACES, Naive, PODS, PORTS,
    PRINCIPALS, TextMtls, TextPolicy, TextRule, Texts, core, objects, peers,
};
use crate::explain::assert_consistent;
use crate::make::{id, ip, workload};

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
