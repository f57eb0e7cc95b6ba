//! Policies made of the input, decided by the core and by the naive reading of the tests of the core.

use tramline_core::authz::{Connection, decide, dry_run, explain};
use tramline_core::plaintext::{PlaintextVerdict, table, verdict};

use crate::Target;
use crate::input::Input;
use crate::make::{id, ip, workload};
use crate::naive::{FROM, Naive, PODS, PORTS, core, peers};
use crate::world::World;

pub(super) const TARGET: Target = Target {
    name: "policy",
    check,
    words: &[],
    mutations: 500,
    memory: (64 << 20, 4096),
};

fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let World { policies, mtls } = World::read(&mut input);
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
