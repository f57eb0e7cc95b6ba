//! Trust domain aliases: Istio's `trustDomainAliases` (pilot, `trustdomain` bundle).

use tramline_core::authz::{
    Action, Condition, ConditionMatch, Connection, MatchList, Rule, ServiceAccountMatch, Source, StringMatch,
    decide,
};
use tramline_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use tramline_core::mesh::{Change, Mesh, MeshSettings};
use tramline_core::object::Objects;

use crate::make::{any, ip, none, pod, policy, workload};

fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn domains(own: &str, aliases: &[&str]) -> TrustDomains {
    let aliases: Vec<_> = aliases.iter().map(|name| domain(name)).collect();
    TrustDomains::new(domain(own), &aliases).unwrap()
}

/// The identity `a` in the namespace `x`.
fn peer(trust_domain: &str) -> SpiffeId {
    SpiffeId::new(&domain(trust_domain), "x", "a").unwrap()
}

fn mesh(trust_domains: &TrustDomains, rule: Rule) -> Mesh {
    let objects = Objects {
        pods: vec![pod("demo", "web", &["10.0.0.1"])],
        authorization_policies: vec![policy("demo", "p", Action::Allow, None, vec![rule])],
        ..Objects::default()
    };
    Mesh::build(objects, &MeshSettings::new(trust_domains.clone(), "n1")).unwrap()
}

fn allows(mesh: &Mesh, source: &SpiffeId) -> bool {
    let connection = Connection {
        source: Some(source),
        source_address: ip("10.9.0.1"),
        destination: workload(mesh, "demo/web"),
        destination_address: "10.0.0.1:80".parse().unwrap(),
    };
    decide(mesh, &connection).is_allow()
}

fn from(source: Source) -> Rule {
    Rule {
        from: vec![source],
        ..Rule::default()
    }
}

fn principals(list: MatchList<StringMatch>) -> Rule {
    from(Source {
        principals: list,
        ..Source::default()
    })
}

fn trust_domains(list: MatchList<StringMatch>) -> Rule {
    from(Source {
        trust_domains: list,
        ..Source::default()
    })
}

fn when(matches: ConditionMatch) -> Rule {
    Rule {
        when: vec![Condition { matches }],
        ..Rule::default()
    }
}

/// Peers of these trust domains, in this order.
const PEERS: [&str; 4] = ["td1", "td2", "old-td", "other"];

#[test]
fn a_principal_of_the_mesh_or_an_alias_stands_for_all_of_them() {
    let ours = domains("td1", &["td2", "old-td"]);
    let all = [true, true, true, false];
    for (pattern, matches) in [
        ("td1/ns/x/sa/a", all),
        ("td2/ns/x/sa/a", all),
        ("old-td/ns/x/sa/a", all),
        ("cluster.local/ns/x/sa/a", all),
        ("td2/ns/x/sa/b", [false; 4]),
        ("td2/ns/x/*", all),
        ("td2/*", all),
        // As written where the trust domain is nobody's here, or none.
        ("other/ns/x/sa/a", [false, false, false, true]),
        ("*/ns/x/sa/a", [true; 4]),
        ("*/sa/a", [true; 4]),
        ("*", [true; 4]),
        // An ending that one of them has stands for the others too, and for whoever else has it.
        ("*-td/ns/x/sa/a", all),
        ("*d1/ns/x/sa/a", all),
        ("*er/ns/x/sa/a", [false, false, false, true]),
        ("*-td/ns/x/sa/b", [false; 4]),
    ] {
        let pattern_of = || StringMatch::principal(pattern).unwrap();
        for (rule, expected) in [
            (principals(any(vec![pattern_of()])), matches),
            (
                principals(none(vec![pattern_of()])),
                matches.map(|matches| !matches),
            ),
            (
                when(ConditionMatch::SourcePrincipal(any(vec![pattern_of()]))),
                matches,
            ),
        ] {
            let mesh = mesh(&ours, rule);
            assert_eq!(
                PEERS.map(|name| allows(&mesh, &peer(name))),
                expected,
                "{pattern}"
            );
        }
    }
}

#[test]
fn a_trust_domain_of_the_mesh_or_an_alias_stands_for_all_of_them() {
    let ours = domains("td1", &["td2", "old-td"]);
    let all = [true, true, true, false];
    for (pattern, matches) in [
        ("td1", all),
        ("td2", all),
        ("cluster.local", all),
        ("other", [false, false, false, true]),
        // Of these Istio makes nothing else.
        ("*-td", [false, false, true, false]),
        ("td*", [true, true, false, false]),
        ("*", [true; 4]),
    ] {
        let list = || any(vec![StringMatch::trust_domain(pattern).unwrap()]);
        for rule in [
            trust_domains(list()),
            when(ConditionMatch::SourceTrustDomain(list())),
        ] {
            let mesh = mesh(&ours, rule);
            assert_eq!(PEERS.map(|name| allows(&mesh, &peer(name))), matches, "{pattern}");
        }
    }
}

#[test]
fn service_accounts_and_namespaces_are_of_any_trust_domain() {
    let ours = domains("td1", &["td2"]);
    for source in [
        Source {
            service_accounts: any(vec![ServiceAccountMatch::parse("x/a", "demo").unwrap()]),
            ..Source::default()
        },
        Source {
            namespaces: any(vec![StringMatch::namespace("x").unwrap()]),
            ..Source::default()
        },
    ] {
        let mesh = mesh(&ours, from(source));
        assert_eq!(PEERS.map(|name| allows(&mesh, &peer(name))), [true; 4]);
    }
}

#[test]
fn without_an_alias_only_the_pointer_to_the_mesh_is_replaced() {
    let ours = domains("td1", &[]);
    for (pattern, matches) in [
        ("cluster.local/ns/x/sa/a", [true, false, false, false]),
        ("td2/ns/x/sa/a", [false, true, false, false]),
        ("*-td/ns/x/sa/a", [false, false, true, false]),
    ] {
        let pattern_of = StringMatch::principal(pattern).unwrap();
        let mesh = mesh(&ours, principals(any(vec![pattern_of])));
        assert_eq!(PEERS.map(|name| allows(&mesh, &peer(name))), matches, "{pattern}");
    }
}

#[test]
fn a_changed_policy_has_the_aliases_too() {
    let ours = domains("td1", &["td2"]);
    let of = |text: &str| principals(any(vec![StringMatch::principal(text).unwrap()]));
    let before = mesh(&ours, of("td1/ns/x/sa/b"));
    assert!(!allows(&before, &peer("td2")));
    let changed = policy("demo", "p", Action::Allow, None, vec![of("td1/ns/x/sa/a")]);
    let after = before
        .apply(vec![Change::SetAuthorizationPolicy(Box::new(changed))])
        .unwrap();
    assert!(allows(&after, &peer("td2")));
}

#[test]
fn aliases_are_bounded_and_none_counts_twice() {
    let many: Vec<_> = (0..17).map(|n| domain(&format!("td{n}"))).collect();
    assert!(TrustDomains::new(domain("own"), &many[..16]).is_ok());
    let error = TrustDomains::new(domain("own"), &many).unwrap_err().to_string();
    assert_eq!(error, "a trust domain has 17 aliases, at most 16 are allowed");
    let ours = domains("td1", &["td1", "td2", "td2"]);
    assert_eq!(ours.all(), [domain("td1"), domain("td2")]);
    assert_eq!(ours.own(), &domain("td1"));
}

#[test]
fn one_service_account_of_the_mesh_is_one_in_all_of_its_trust_domains() {
    let ours = domains("td1", &["td2"]);
    let other = SpiffeId::new(&domain("td2"), "x", "b").unwrap();
    assert!(ours.are_one(&peer("td1"), &peer("td2")) && ours.are_one(&peer("td2"), &peer("td1")));
    assert!(!ours.are_one(&peer("td1"), &other));
    assert!(!ours.are_one(&peer("td1"), &peer("other")) && !ours.are_one(&peer("other"), &peer("td1")));
    assert!(ours.are_one(&peer("other"), &peer("other")));
}
