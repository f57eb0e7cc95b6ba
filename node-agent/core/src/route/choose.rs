//! Which endpoint of a Service a connection goes to.
//!
//! First what must be: the family, the port, readiness, `internalTrafficPolicy`. Then what stays: a pinned client keeps
//! its endpoint. Then what is better: endpoints that did not just fail, and among them the closest ones. Of what is left
//! the less busy of two.

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};

use super::{Balance, Dialled};
use crate::mesh::Mesh;
use crate::service::{Distribution, Endpoint, Readiness, Service};
use crate::workload::Workload;

/// The endpoint that was chosen.
pub(super) struct Chosen<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) address: SocketAddr,
    /// How many others could be tried after it.
    pub(super) alternatives: usize,
}

/// Why there is none.
pub(super) enum Nothing {
    /// None is ready, or all of them were tried.
    Ready,
    /// Some are, but not on the client's node.
    OnNode,
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a Endpoint,
    address: SocketAddr,
}

pub(super) fn choose<'a>(
    mesh: &'a Mesh,
    dialled: &Dialled<'_>,
    service: &'a Service,
    balance: &dyn Balance,
) -> Result<Chosen<'a>, Nothing> {
    let place = Place::of(mesh, dialled.source);
    let mut candidates = serving(service, dialled.destination, |endpoint| {
        !service.node_local || place.is_node_of(endpoint)
    });
    if candidates.is_empty()
        && service.node_local
        && !serving(service, dialled.destination, |_| true).is_empty()
    {
        return Err(Nothing::OnNode);
    }
    // Asked before endpoints are left out for having failed: hints say something only as a whole.
    let preference = Preference::of(service, &candidates, &place);
    candidates.retain(|candidate| !dialled.tried.contains(&candidate.address));

    let Candidate { endpoint, address } =
        one_of(candidates.clone(), dialled, service, balance, &preference, &place).ok_or(Nothing::Ready)?;
    Ok(Chosen {
        endpoint,
        address,
        alternatives: candidates.len() - 1,
    })
}

/// The endpoints between which only their load decides for what `source` dials, where none has failed.
pub(crate) fn equals<'a>(
    mesh: &Mesh,
    source: &Workload,
    destination: SocketAddr,
    service: &'a Service,
) -> Vec<(&'a Endpoint, SocketAddr)> {
    let place = Place::of(mesh, source);
    let mut candidates = serving(service, destination, |endpoint| {
        !service.node_local || place.is_node_of(endpoint)
    });
    let preference = Preference::of(service, &candidates, &place);
    best_only(&mut candidates, |candidate| {
        preference.distance(candidate.endpoint, &place)
    });
    candidates
        .into_iter()
        .map(|candidate| (candidate.endpoint, candidate.address))
        .collect()
}

/// Keeps those whose rank is the lowest.
fn best_only<T, R: Ord>(candidates: &mut Vec<T>, rank: impl Fn(&T) -> R) {
    let ranks: Vec<_> = candidates.iter().map(rank).collect();
    if let Some(best) = ranks.iter().min() {
        let mut each = ranks.iter();
        candidates.retain(|_| each.next() == Some(best));
    }
}

/// The allowed endpoints that serve the port in the family that was dialled: those that are ready, or, where none is,
/// those that are ending.
fn serving(
    service: &Service,
    destination: SocketAddr,
    is_allowed: impl Fn(&Endpoint) -> bool,
) -> Vec<Candidate<'_>> {
    // A dual-stack Service answers a family with endpoints of that family: the application's socket can speak no other.
    let usable = || {
        service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.address.is_ipv4() == destination.is_ipv4() && is_allowed(endpoint))
            .filter_map(|endpoint| Some((endpoint, endpoint.target_port(destination.port())?)))
    };
    let of = |readiness: Readiness| {
        usable()
            .filter(|(endpoint, _)| endpoint.readiness == readiness)
            .map(|(endpoint, port)| Candidate {
                endpoint,
                address: SocketAddr::new(endpoint.address, port),
            })
            .collect::<Vec<_>>()
    };
    let ready = of(Readiness::Ready);
    if ready.is_empty() {
        of(Readiness::Draining)
    } else {
        ready
    }
}

fn one_of<'a>(
    mut candidates: Vec<Candidate<'a>>,
    dialled: &Dialled<'_>,
    service: &Service,
    balance: &dyn Balance,
    preference: &Preference,
    place: &Place<'_>,
) -> Option<Candidate<'a>> {
    if service.session_affinity.is_some()
        && let Some(pinned) = balance.pinned(dialled.client, service, dialled.destination.port())
        && let Some(candidate) = candidates.iter().find(|candidate| candidate.address == pinned)
    {
        return Some(*candidate);
    }
    let rank = |candidate: &Candidate<'_>| {
        (
            balance.is_avoided(candidate.address),
            preference.distance(candidate.endpoint, place),
        )
    };
    best_only(&mut candidates, rank);

    if service.session_affinity.is_some() {
        // The same for the same client as long as the endpoints are the same: also after the agent was replaced.
        return candidates
            .into_iter()
            .max_by_key(|candidate| weight(dialled.client, service, candidate.address));
    }
    if let Some(picked) = dialled.picked
        && let Some(candidate) = candidates.iter().find(|candidate| candidate.address == picked)
    {
        return Some(*candidate);
    }
    less_busy(&candidates, dialled.draws, |candidate| {
        balance.load(candidate.address)
    })
    .copied()
}

/// Power of two choices: of two different ones drawn at random the one with less to do, the first where they are equal.
fn less_busy<T>(all: &[T], draws: [u64; 2], load: impl Fn(&T) -> u64) -> Option<&T> {
    let [first, second] = draws;
    let at = pick(first, all.len())?;
    let chosen = all.get(at)?;
    // Among the others: one that is drawn twice would be no choice.
    let other = pick(second, all.len() - 1).map(|index| index + usize::from(index >= at));
    match other.and_then(|index| all.get(index)) {
        Some(other) if load(other) < load(chosen) => Some(other),
        _ => Some(chosen),
    }
}

/// An index below `count` by the high half of a 128-bit product: uniform to within `count` / 2^64, no division.
fn pick(draw: u64, count: usize) -> Option<usize> {
    let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
    usize::try_from((u128::from(draw) * u128::from(count)) >> 64).ok()
}

/// Rendezvous hashing: a client goes to the endpoint with the greatest weight, so that one that comes or goes moves
/// only its own clients.
fn weight(client: IpAddr, service: &Service, endpoint: SocketAddr) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let octets = |hash: &mut Fnv, address: IpAddr| match address {
        IpAddr::V4(address) => hash.write(&address.octets()),
        IpAddr::V6(address) => hash.write(&address.octets()),
    };
    octets(&mut hash, client);
    hash.write(service.hostname.as_bytes());
    octets(&mut hash, endpoint.ip());
    hash.finish()
}

/// FNV-1a with a finalizer (that of MurmurHash3). The standard library's hasher may change with its release, and the
/// next agent must come to the same answers.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mut bits = self.0;
        for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
            bits = (bits ^ (bits >> 33)).wrapping_mul(factor);
        }
        bits ^ (bits >> 33)
    }
}

/// Where the client is.
struct Place<'a> {
    node: &'a str,
    zone: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(mesh: &'a Mesh, source: &'a Workload) -> Self {
        Self {
            node: &source.node,
            zone: mesh.zone_of(&source.node).map(AsRef::as_ref),
        }
    }

    fn is_node_of(&self, endpoint: &Endpoint) -> bool {
        // A pod that is not scheduled has no node; nothing is near it.
        !self.node.is_empty() && endpoint.node.as_deref() == Some(self.node)
    }

    fn is_zone_of(&self, endpoint: &Endpoint) -> bool {
        self.zone.is_some() && endpoint.zone.as_deref() == self.zone
    }
}

/// Which endpoints are better than others for who is at a place.
enum Preference {
    None,
    /// What the control plane wrote for nodes, else for zones.
    Hints {
        nodes: bool,
        zones: bool,
    },
    /// `trafficDistribution` taken at its word, where nobody wrote hints.
    Distribution(Distribution),
}

impl Preference {
    /// As kube-proxy does: hints count only where every endpoint has some (a slice that is half written would send
    /// everything to the first one) and at least one is for this place.
    fn of(service: &Service, candidates: &[Candidate<'_>], place: &Place<'_>) -> Self {
        if service.node_local {
            return Self::None;
        }
        let hold = |have: fn(&Endpoint) -> bool, meant: fn(&Endpoint, &Place<'_>) -> bool| {
            candidates.iter().all(|candidate| have(candidate.endpoint))
                && candidates
                    .iter()
                    .any(|candidate| meant(candidate.endpoint, place))
        };
        let nodes = hold(|endpoint| !endpoint.hints.nodes.is_empty(), meant_for_node);
        let zones = hold(|endpoint| !endpoint.hints.zones.is_empty(), meant_for_zone);
        match service.distribution {
            _ if nodes || zones => Self::Hints { nodes, zones },
            Distribution::Anywhere => Self::None,
            distribution => Self::Distribution(distribution),
        }
    }

    /// The smaller, the better.
    fn distance(&self, endpoint: &Endpoint, place: &Place<'_>) -> u8 {
        let (in_node, in_zone) = match self {
            Self::None => return 0,
            Self::Hints { nodes, zones } => (
                *nodes && meant_for_node(endpoint, place),
                *zones && meant_for_zone(endpoint, place),
            ),
            Self::Distribution(distribution) => (
                *distribution == Distribution::SameNode && place.is_node_of(endpoint),
                place.is_zone_of(endpoint),
            ),
        };
        match (in_node, in_zone) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }
}

fn meant_for_node(endpoint: &Endpoint, place: &Place<'_>) -> bool {
    endpoint.hints.nodes.iter().any(|node| **node == *place.node)
}

fn meant_for_zone(endpoint: &Endpoint, place: &Place<'_>) -> bool {
    endpoint
        .hints
        .zones
        .iter()
        .any(|zone| Some(&**zone) == place.zone)
}

#[cfg(test)]
mod tests;
