//! One decision, with so many policies of ten rules for one workload.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tramline_core::authz::{Action, Connection, decide};
use tramline_core::identity::SpiffeId;
use tramline_core::object::Objects;

use super::{Row, made};

/// Decisions of one run.
const DECISIONS: u32 = 200_000;
/// Peers that take turns, so that no one of them stays in the processor's cache.
const PEERS: u32 = 500;

/// A peer, and whether it is let in.
type Peer = (Option<SpiffeId>, IpAddr, bool);

pub(super) fn rows(policies: u32, rounds: u32) -> Result<[Row; 2]> {
    let mut pod = made::pod(0);
    pod.meta.object.namespace = "demo".into();
    let authorization_policies = (0..policies)
        .map(|number| {
            // Every tenth denies; the peers of its rules are others than those that are let in.
            let action = if number % 10 == 5 {
                Action::Deny
            } else {
                Action::Allow
            };
            made::policy("demo", &format!("p-{number:06}"), number, action, None)
        })
        .collect::<Result<_>>()?;
    let mesh = made::mesh(Objects {
        pods: vec![pod],
        authorization_policies,
        ..Objects::default()
    })?;
    let destination = mesh.workloads().next().context("the pod is gone")?;
    let address = *destination.addresses.first().context("the pod has no address")?;
    let run = |peers: &[Peer]| -> Result<f64> {
        let ask = |(source, from, _): &Peer| {
            let connection = Connection {
                source: source.as_ref(),
                source_address: *from,
                destination,
                destination_address: (address, 8080).into(),
            };
            decide(&mesh, black_box(&connection)).is_allow()
        };
        for peer in peers {
            ensure!(ask(peer) == peer.2, "{:?} got the wrong answer", peer.0);
        }
        let start = Instant::now();
        let mut let_in = 0_u32;
        for peer in peers.iter().cycle().take(usize::try_from(DECISIONS)?) {
            let_in += u32::from(ask(peer));
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9 / f64::from(DECISIONS);
        black_box(let_in);
        Ok(nanos)
    };
    let runs = |peers: Vec<Peer>| (0..rounds).map(|_| run(&peers)).collect::<Result<Vec<_>>>();
    Ok([
        Row::new("decision", policies, "ns", "ns", runs(matching(policies)?)?)?,
        Row::new("decision_denied", policies, "ns", "ns", runs(strangers()?)?)?,
    ])
}

/// Peers that a rule lets in or keeps out, of every form of rule, spread over all policies.
fn matching(policies: u32) -> Result<Vec<Peer>> {
    let far = IpAddr::V4(Ipv4Addr::new(10, 200, 0, 1));
    (0..PEERS)
        .map(|number| {
            let policy = u32::try_from(u64::from(number) * u64::from(policies) / u64::from(PEERS))?;
            let rule = number % made::RULES;
            let peer = policy * made::RULES + rule;
            let allowed = policy % 10 != 5;
            Ok(match rule % 5 {
                0 => (
                    Some(made::identity(&format!("ns-{policy}"), &format!("sa-{rule}"))?),
                    far,
                    allowed,
                ),
                1 => (
                    Some(made::identity(&format!("team-{peer}"), "default")?),
                    far,
                    allowed,
                ),
                2 => (
                    Some(made::identity(&format!("ns-{policy}"), &format!("robot-{rule}"))?),
                    far,
                    allowed,
                ),
                3 => (None, made::block(peer), allowed),
                _ => (
                    Some(made::identity(&format!("tenant-{peer}-x"), "default")?),
                    far,
                    allowed,
                ),
            })
        })
        .collect()
}

/// Peers that no rule asks for: all policies have been asked when the answer is no.
fn strangers() -> Result<Vec<Peer>> {
    let from = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    (0..PEERS)
        .map(|number| {
            let stranger = made::identity("strangers", &format!("s-{number}"))?;
            Ok((Some(stranger), from, false))
        })
        .collect()
}
