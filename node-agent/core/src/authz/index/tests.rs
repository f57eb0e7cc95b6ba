//! What is found while the peer's address is not known.

use std::net::IpAddr;

use super::*;
use crate::authz::eval::{Truth, rule_matches};
use crate::authz::{Action, IpMatch, MatchList, Source, StringMatch};
use crate::identity::{SpiffeId, TrustDomain};

fn any<T>(value: T) -> MatchList<T> {
    MatchList {
        any: vec![value],
        none: Vec::new(),
    }
}

fn from(source: Source) -> Rule {
    Rule {
        from: vec![source],
        ..Rule::default()
    }
}

fn of_principal(number: u32) -> Source {
    let text = format!("cluster.local/ns/demo/sa/peer-{number}");
    Source {
        principals: any(StringMatch::principal(&text).unwrap()),
        ..Source::default()
    }
}

fn of_block(number: u32) -> Source {
    let address = IpAddr::from([10, 1, (number / 256) as u8, number as u8]);
    Source {
        ip_blocks: any(IpMatch::parse(&address.to_string()).unwrap()),
        ..Source::default()
    }
}

/// The rules that are found for a peer at whatever address.
fn found(rules: &[Rule], peer: u32) -> Vec<u32> {
    let domain = TrustDomain::new("cluster.local").unwrap();
    let peer = SpiffeId::new(&domain, "demo", &format!("peer-{peer}")).unwrap();
    let facts = Facts {
        source: Some(&peer),
        source_address: None,
        destination_addresses: &[IpAddr::from([10, 0, 0, 1])],
        port: 80,
    };
    let rules: Vec<&Rule> = rules.iter().collect();
    let mut found = Vec::new();
    Index::new(&rules).visit(&Probe::of(&facts).unwrap(), &mut |list| {
        found.extend_from_slice(list);
    });
    found.sort_unstable();
    found.dedup();
    for (number, rule) in (0_u32..).zip(rules) {
        if rule_matches(Action::Allow, rule, &facts) != Truth::No {
            assert!(found.contains(&number), "rule {number} may match");
        }
    }
    found
}

#[test]
fn rules_of_other_peers_are_not_looked_at() {
    let rules: Vec<_> = (0..10_000).map(|number| from(of_principal(number))).collect();
    assert_eq!(found(&rules, 7), [7]);
    assert_eq!(found(&rules, 10_000), [0; 0]);
}

#[test]
fn rules_that_ask_for_an_address_are() {
    let mut rules: Vec<_> = (0..1_000).map(|number| from(of_principal(number))).collect();
    rules.extend((0..100).map(|number| from(of_block(number))));
    // Filed under the address, or under the peer, whichever is rarer.
    rules.push(from(Source {
        ip_blocks: of_block(500).ip_blocks,
        ..of_principal(3)
    }));
    let found = found(&rules, 3);
    assert!((1_000..1_101).all(|number| found.contains(&number)), "{found:?}");
    assert!(found.contains(&3) && found.len() <= 103, "{found:?}");
}
