//! What the kernel allows, the core allows: random policies and exclusions in the real maps, real connections, and for each
//! of them the question whether the core and a naive reading of the same policies would have let it come as far.
//!
//! Between two configurations the agent's order is kept and connections are made at each step of it. `TRAMLINE_MESHES` says
//! how many are tried, `TRAMLINE_SEED` which.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]
#![expect(
    clippy::print_stdout,
    reason = "the seed of a failure and the figures of a long run"
)]
#![expect(unreachable_pub, reason = "modules of a test")]

mod agent;
mod stage;
mod state;

use crate::{
    agent::Agent,
    stage::{Came, Dial, From, Stage, pod_at},
    state::{LISTENING, LIVES, OUTSIDE, SERVICE, SERVICE_PORT, State, ip},
};
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
};
use tramline_core::plaintext::PlaintextVerdict;
use tramline_fuzz::mutate::Random;
use tramline_kernel_tests::node::is_outside;

const SEED: u64 = 0x6d65_7368;
/// Configurations in CI.
const MESHES: u64 = 120;
/// Connections between two of them.
const DIALS: usize = 150;

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect(variable),
        Err(_) => otherwise,
    }
}

/// Says how to get there again.
struct Where {
    seed: u64,
    mesh: u64,
}

impl Drop for Where {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, mesh } = self;
            println!("again with TRAMLINE_SEED={seed} TRAMLINE_MESHES={}", *mesh + 1);
        }
    }
}

/// Anybody dials anybody, often somebody who was dialled before.
fn dial(random: &mut Random, known: &mut Vec<Dial>) -> Dial {
    if !known.is_empty() && random.below(3) > 0 {
        return known[random.below(known.len())];
    }
    let from = match random.below(4) {
        0 => From::Outside(random.below(OUTSIDE.len())),
        _ => From::Pod(random.below(LIVES.len())),
    };
    let to = random.below(LIVES.len());
    let to = match (from, random.below(10)) {
        (From::Pod(_), 0) => SocketAddr::new(ip(OUTSIDE[random.below(OUTSIDE.len())]), 80),
        (From::Pod(_), 1 | 2) => SocketAddr::new(ip(SERVICE[random.below(SERVICE.len())]), SERVICE_PORT),
        _ => {
            let itself = matches!(from, From::Pod(pod) if pod == to) && random.below(8) > 0;
            let to = if itself { (to + 1) % LIVES.len() } else { to };
            let (_, v4, v6) = LIVES[to];
            let v6_only = matches!(from, From::Outside(at) if ip(OUTSIDE[at]).is_ipv6());
            let v4_only = matches!(from, From::Outside(at) if ip(OUTSIDE[at]).is_ipv4());
            let address = if v6_only || (!v4_only && random.below(2) == 0) {
                v6
            } else {
                v4
            };
            SocketAddr::new(ip(address), LISTENING[random.below(LISTENING.len())])
        }
    };
    let mapped = matches!(from, From::Pod(_)) && random.below(4) == 0;
    let dial = Dial { from, to, mapped };
    if known.len() < 24 {
        known.push(dial);
    } else {
        let at = random.below(known.len());
        known[at] = dial;
    }
    dial
}

/// The address a connection comes from.
fn client(dial: &Dial) -> IpAddr {
    match dial.from {
        From::Outside(at) => ip(OUTSIDE[at]),
        From::Pod(pod) if dial.to.is_ipv4() => ip(LIVES[pod].1),
        From::Pod(pod) => ip(LIVES[pod].2),
    }
}

/// Whether the connection may have come to where it came, if any of these configurations counts. Never more than they allow,
/// and refused only where they refuse.
fn check(dial: &Dial, came: Came, states: &[&State]) -> Result<&'static str, String> {
    let any = |holds: &dyn Fn(&State) -> bool| states.iter().any(|state| holds(state));
    let from = client(dial);
    let to = dial.to;
    let source = match dial.from {
        From::Pod(pod) => Some(pod),
        From::Outside(_) => None,
    };
    let excluded = source.is_some_and(|pod| any(&|state| state.excludes_outbound(pod, to)));
    let always_excluded =
        source.is_some_and(|pod| states.iter().all(|state| state.excludes_outbound(pod, to)));
    let Some(pod) = pod_at(to.ip()) else {
        let source = source.ok_or("nobody outside dials outside")?;
        if any(&|state| state.is_service(to))
            && let Some(what) = check_service(source, from, to, came, states)?
        {
            return Ok(what);
        }
        return match came {
            Came::Outside if any(&|state| state.is_outside(source, to)) => Ok("outside"),
            Came::Outside if excluded => Ok("excluded"),
            Came::Captured if !always_excluded => Ok("captured"),
            _ => Err("outside the mesh".into()),
        };
    };
    if source == Some(pod) {
        let itself = came == Came::Application(pod, to.port());
        return itself.then_some("to itself").ok_or("a pod reaches itself".into());
    }
    let by_identity = |state: &State| source.is_some() && state.allows(source, from, pod, to);
    let in_plaintext = |state: &State| state.allows(None, from, pod, to);
    let is_plaintext = source.is_none() || excluded;
    match came {
        Came::Application(at, port) if (at, port) != (pod, to.port()) => {
            Err("another pod's application".into())
        }
        Came::Application(..) => {
            // By identity only from where the kernel captures; in plaintext only from elsewhere.
            if source.is_some() && !always_excluded && any(&by_identity) {
                Ok("direct")
            } else if is_plaintext && any(&in_plaintext) {
                Ok("plaintext")
            } else if is_plaintext && any(&|state| state.excludes_inbound(pod, to.port())) {
                Ok("excluded")
            } else {
                Err("let in, and nothing allows it".into())
            }
        }
        Came::Captured if source.is_some() && !always_excluded => Ok("captured"),
        Came::Asked if is_plaintext => {
            let asks = any(&|state| state.plaintext(pod, to.port()) == PlaintextVerdict::Ask);
            asks.then_some("asked")
                .ok_or("asked, and every client has the same answer".into())
        }
        Came::Refused(ErrorKind::PermissionDenied) if source.is_some() && !always_excluded => {
            let denied = any(&|state| !by_identity(state));
            denied
                .then_some("denied")
                .ok_or("denied, and it is allowed".into())
        }
        Came::Refused(ErrorKind::ConnectionRefused) if is_plaintext => {
            let closed = any(&|state| !in_plaintext(state) && !state.excludes_inbound(pod, to.port()));
            closed
                .then_some("refused")
                .ok_or("refused, and it is allowed".into())
        }
        _ => Err("neither let in nor refused as it should be".into()),
    }
}

/// The same for a Service; `None` where the answer is one to somebody outside the mesh.
fn check_service(
    source: usize,
    from: IpAddr,
    to: SocketAddr,
    came: Came,
    states: &[&State],
) -> Result<Option<&'static str>, String> {
    // Whether some endpoint of some configuration is such that the connection may have come there.
    let any = |holds: &dyn Fn(&State, SocketAddr) -> bool| {
        states.iter().any(|state| {
            let endpoints = state.service(source, to).map(|service| service.endpoints);
            let mut addresses = endpoints.into_iter().flatten().map(|(address, _)| address);
            addresses.any(|address| holds(state, address))
        })
    };
    let takes = |state: &State, address: SocketAddr| {
        pod_at(address.ip()).map(|pod| (pod, state.allows(Some(source), from, pod, address)))
    };
    let (holds, what) = match came {
        Came::Captured => return Ok(Some("captured")),
        Came::Application(pod, port) => (
            any(&|state, address| address.port() == port && takes(state, address) == Some((pod, true))),
            "service",
        ),
        Came::Refused(ErrorKind::PermissionDenied) => (
            any(&|state, address| takes(state, address).is_some_and(|(_, allowed)| !allowed)),
            "service denied",
        ),
        Came::Outside | Came::Refused(ErrorKind::ConnectionRefused) => {
            let led = any(&|state, address| state.is_outside(source, address));
            return Ok(led.then_some("service outside"));
        }
        _ => return Err("neither led anywhere nor refused as it should be".into()),
    };
    holds
        .then_some(Some(what))
        .ok_or("led to where no endpoint allows it".into())
}

struct Run {
    random: Random,
    known: Vec<Dial>,
    tally: BTreeMap<&'static str, u64>,
}

impl Run {
    fn one(&mut self, agent: &mut Agent, states: &[&State]) {
        let dial = dial(&mut self.random, &mut self.known);
        let came = agent.stage.dial(dial);
        match check(&dial, came, states) {
            Ok(what) => *self.tally.entry(what).or_default() += 1,
            Err(why) => panic!("{why}: {dial:?} came to {came:?}\n{states:#?}"),
        }
        agent.consider(&mut self.random, dial, came);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_the_kernel_allows_the_core_allows() {
    if is_outside("what_the_kernel_allows_the_core_allows") {
        return;
    }
    let (seed, meshes) = (number("TRAMLINE_SEED", SEED), number("TRAMLINE_MESHES", MESHES));
    let mut run = Run {
        random: Random::new(seed),
        known: Vec::new(),
        tally: BTreeMap::new(),
    };
    let mut agent = Agent::new(Stage::new().await, State::first(&mut run.random));
    let mut at = Where { seed, mesh: 0 };
    for mesh in 0..meshes {
        at.mesh = mesh;
        for _ in 0..DIALS {
            let state = agent.state().clone();
            run.one(&mut agent, &[&state]);
            match run.random.below(40) {
                0 => agent.renew(run.random.below(LIVES.len())),
                1 => agent.leave_pending(),
                _ => {}
            }
        }
        let next = agent.state().next(&mut run.random);
        agent.put(next, |agent, states| {
            for _ in 0..3 {
                run.one(agent, states);
            }
        });
        // The change is acknowledged here. What was decided before and is left only now is void.
        agent.leave_pending();
    }
    let counters: BTreeMap<_, _> = agent.stage.broker.counters().into_iter().collect();
    println!("{:?}\n{counters:?}", run.tally);
    // Each of these is an answer that could have been wrong. How often the rare ones come is known of one seed.
    let seen = |what| run.tally.get(what).copied().unwrap_or(0);
    for what in ["direct", "plaintext", "captured"] {
        assert!(
            seen(what) >= meshes,
            "{what}: {} in {meshes} configurations",
            seen(what)
        );
    }
    for what in [
        "denied",
        "outside",
        "refused",
        "asked",
        "excluded",
        "service",
        "service denied",
        "service outside",
    ] {
        let enough = (seed, meshes) != (SEED, MESHES) || seen(what) >= meshes / 4;
        assert!(enough, "{what}: {} in {meshes} configurations", seen(what));
    }
    assert!(counters["verdict_stale"] >= meshes, "{counters:?}");
}
