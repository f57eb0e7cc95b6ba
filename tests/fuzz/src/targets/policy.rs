//! Policies made of the input, decided by the core and by the naive reading of the tests of the core.

use tramline_core::authz::{Action, Connection, decide, dry_run, explain};
use tramline_core::peer_authentication::Mode;
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};

use crate::Target;
use crate::input::Input;
use crate::make::{id, ip, workload};
use crate::naive::{
    ACCOUNTS, BLOCKS, DESTINATIONS, DOMAINS, FROM, NAMESPACE_PATTERNS, NAMESPACES, Naive, PODS, PORTS,
    PRINCIPALS, TextMtls, TextPolicy, TextRule, Texts, core, peers,
};

pub(super) const TARGET: Target = Target {
    name: "policy",
    check,
    words: &[],
    mutations: 500,
    memory: (64 << 20, 4096),
};

const ACTIONS: [Action; 5] = [
    Action::Allow,
    Action::Deny,
    Action::Allow,
    Action::Custom,
    Action::Audit,
];
const MODES: [Mode; 3] = [Mode::Unset, Mode::Permissive, Mode::Strict];
const SELECTORS: [Option<&str>; 3] = [None, Some("web"), Some("db")];

fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let mtls: Vec<_> = (0..input.below(4)).map(|_| mtls(&mut input)).collect();
    let policies: Vec<_> = (0..input.below(6)).map(|_| policy(&mut input)).collect();
    let mesh = core(&policies, &mtls);
    let pod = input.below(PODS.len());
    let (namespace, name) = PODS[pod];
    let destination = workload(&mesh, &format!("{namespace}/{name}"));
    let addresses = [
        ip(&format!("10.0.0.{}", pod + 1)),
        ip(&format!("fd00::{}", pod + 1)),
    ];
    let table = table(&mesh, destination);
    for port in PORTS.iter().copied().chain([1234]) {
        let projected = verdict(&mesh, destination, port);
        assert_eq!(
            projected,
            table.ports.get(&port).copied().unwrap_or(table.default)
        );
        for (peer, from, to) in peers()
            .flat_map(|peer| FROM.iter().map(move |from| (peer, ip(from))))
            .flat_map(|(peer, from)| addresses.map(|to| (peer, from, to)))
        {
            let naive = Naive { peer, from, to, port };
            let allowed = naive.allowed((namespace, name), &policies, &mtls, false);
            let trial = naive.allowed((namespace, name), &policies, &mtls, true);
            let source = peer.map(|(namespace, account)| id(namespace, account));
            let connection = Connection {
                source: source.as_ref(),
                source_address: from,
                destination,
                destination_address: (to, port).into(),
            };
            let decision = decide(&mesh, &connection);
            let told = || format!("{naive:?} {decision} {policies:#?} {mtls:#?}");
            assert_eq!(decision.is_allow(), allowed, "{}", told());
            let tried = dry_run(&mesh, &connection);
            let would_be = tried.as_ref().map_or(allowed, |decision| decision.is_allow());
            assert_eq!(would_be, trial, "{}", told());
            // A refusal names its policy, unless it is that no ALLOW rule matched.
            let reason = decision.to_string();
            assert!(allowed || reason.starts_with("denied"), "{reason}");
            if peer.is_none() && from == ip(FROM[0]) {
                let explained = explain(&mesh, &connection);
                assert_eq!((&explained.decision, &explained.dry_run), (&decision, &tried));
            }
            match projected {
                _ if peer.is_some() => {}
                PlaintextVerdict::Pass => assert!(allowed, "{}", told()),
                PlaintextVerdict::Drop => assert!(!allowed, "{}", told()),
                PlaintextVerdict::Ask => {}
            }
        }
    }
}

fn mtls(input: &mut Input<'_>) -> TextMtls {
    let namespace = input.of(NAMESPACES);
    // What the core refuses is not what is compared here.
    let selector = input.of(&SELECTORS).filter(|_| namespace != "istio-system");
    let ports = match selector {
        Some(_) => PORTS[..input.below(PORTS.len())].to_vec(),
        None => Vec::new(),
    };
    TextMtls {
        namespace,
        selector,
        mode: input.of(&MODES),
        ports: ports.into_iter().map(|port| (port, input.of(&MODES))).collect(),
    }
}

fn policy(input: &mut Input<'_>) -> TextPolicy {
    TextPolicy {
        namespace: input.of(NAMESPACES),
        selector: input.of(&SELECTORS),
        action: input.of(&ACTIONS),
        dry_run: input.once_in(5),
        rules: (0..input.below(4)).map(|_| rule(input)).collect(),
    }
}

fn rule(input: &mut Input<'_>) -> TextRule {
    let from = (0..input.below(3)).map(|_| {
        let source = [PRINCIPALS, NAMESPACE_PATTERNS, ACCOUNTS, BLOCKS, DOMAINS];
        (source.map(|of| texts(input, of)), input.once_in(9))
    });
    let from = from.collect();
    let to = (0..input.below(3)).map(|_| (input.some(PORTS, 2), input.some(PORTS, 1), input.once_in(9)));
    let to = to.collect();
    let when = (0..input.below(3)).map(|_| {
        let (key, of) = input.of(&[
            ("source.ip", BLOCKS),
            ("source.namespace", NAMESPACE_PATTERNS),
            ("source.principal", PRINCIPALS),
            ("source.serviceAccount", ACCOUNTS),
            ("source.trustDomain", DOMAINS),
            ("destination.ip", DESTINATIONS),
            ("destination.port", &["80", "9090"]),
            ("request.headers[x]", &["y"]),
        ]);
        (key, texts(input, of))
    });
    let when = when.collect();
    TextRule { from, to, when }
}

/// Nothing in most fields, else up to two values and one of its `not` twin.
fn texts(input: &mut Input<'_>, of: &[&'static str]) -> Texts {
    if input.below(3) == 0 {
        (input.some(of, 2), input.some(of, 1))
    } else {
        Texts::default()
    }
}
