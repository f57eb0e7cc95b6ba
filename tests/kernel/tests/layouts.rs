//! An agent takes the kernel over from one that has another layout of maps, in both directions.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use std::{
    io::Read as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};
use tramline_common::layout::PINNED;
use tramline_kernel_tests::{
    NEIGHBOUR_V4, Pod,
    traffic::{Forbidden, Traffic},
    versions::{Agent, EXCLUDED, Held, Next, Now, Plaintext},
};

const SOON: Duration = Duration::from_secs(2);
/// Of one layout, and the ring buffer of a debug object's diagnostics.
const MAPS: usize = PINNED.len() + 1;

/// Everything that an agent would keep while it drains.
#[derive(Default)]
struct Drained(Vec<Box<dyn std::any::Any>>);

async fn succeed<Old: Agent, New: Agent>(
    pod: &Pod,
    traffic: &Traffic,
    old: (Old, Vec<Held>),
    drained: &mut Drained,
) -> (New, Vec<Held>) {
    old.0.leave();
    drained.0.push(Box::new(old));
    let new = New::take_over(&[&pod.netns()], pod, true).await;
    traffic.accept_at(&new.1);
    std::thread::sleep(Duration::from_millis(100));
    new
}

#[tokio::test]
async fn there_and_back_nothing_escapes_is_let_in_or_fails() {
    let pod = Pod::new("la");
    let mut drained = Drained::default();
    let mut now = Now::take_over(&[&pod.netns()], &pod, false).await;
    let traffic = Traffic::begin(&pod);
    traffic.accept_at(&now.1);
    for _ in 0..3 {
        let next: (Next, _) = Box::pin(succeed(&pod, &traffic, now, &mut drained)).await;
        let captured = next.0.count("captured");
        assert!(captured > 0, "the next version's programs are there");
        assert_eq!(pins(&pod), MAPS, "maps of the version before are gone");
        now = Box::pin(succeed(&pod, &traffic, next, &mut drained)).await;
        assert!(now.0.count("captured") > 0, "and the present one's again");
        assert_eq!(pins(&pod), MAPS);
    }
    let tally = traffic.end();
    assert_eq!(tally.forbidden, [0, 0], "{tally:?}");
    assert!(tally.failed.is_empty(), "{tally:?}");
    assert!(tally.captured > 50 && tally.knocks > 50, "{tally:?}");
}

fn pins(pod: &Pod) -> usize {
    std::fs::read_dir(pod.pinned_maps()).expect("pins").count()
}

#[tokio::test]
async fn the_same_layout_waits_for_nothing_and_another_for_its_pods() {
    let pod = Pod::new("lb");
    let now = Now::begin(&pod, false).expect("start");
    assert!(!now.waits(), "nothing was there");
    drop(now);
    let next = Next::begin(&pod, false).expect("start");
    assert!(!next.waits(), "no pod is captured");
    drop(next);
    let (now, _held) = Now::take_over(&[&pod.netns()], &pod, false).await;
    drop(now);
    assert!(!Now::begin(&pod, false).expect("start").waits());
    let next = Next::begin(&pod, false).expect("start");
    assert!(next.waits());
    // Its programs would not know the pod.
    let refused = next
        .hold(&pod.netns(), Plaintext::Closed)
        .await
        .err()
        .expect("refused");
    assert!(refused.contains("another layout"), "{refused}");
}

/// Two pods, one of which dials the other directly.
async fn direct<A: Agent>(agent: &A, pods: [&Path; 2]) -> [Held; 2] {
    let from = agent.hold(pods[0], Plaintext::Closed).await.expect("enrol");
    let to = agent.hold(pods[1], Plaintext::Closed).await.expect("enrol");
    agent.let_pass(from.id, to.id, server());
    [from, to]
}

fn server() -> SocketAddr {
    SocketAddr::new(NEIGHBOUR_V4.parse().expect("an address"), 80)
}

fn dial(pod: &Pod) -> TcpStream {
    pod.inside(|| TcpStream::connect_timeout(&server(), SOON))
        .expect("connect")
}

fn is_waiting_at(held: &Held) -> bool {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if held.outbound.iter().any(|listener| listener.accept().is_ok()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The next connection at the server.
fn arrived(server: &TcpListener) -> TcpStream {
    let until = Instant::now() + SOON;
    loop {
        match server.accept() {
            Ok((stream, _)) => return stream,
            Err(error) => assert!(Instant::now() < until, "nothing came directly: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn what_was_let_pass_is_known<Old: Agent, New: Agent>(tag: &str) {
    let pod = Pod::new(tag);
    let neighbour = pod.neighbour();
    let app = neighbour.inside(|| TcpListener::bind(server()).expect("bind"));
    app.set_nonblocking(true).expect("option");
    let (source, destination) = (pod.netns(), neighbour.netns());
    let pods = [&*source, &*destination];
    let old = Old::begin(&pod, false).expect("start");
    let old_held = direct(&old, pods).await;
    let (mut kept, _kept_there) = (dial(&pod), arrived(&app));
    let short = (dial(&pod), arrived(&app));
    let at = |stream: &TcpStream| (stream.local_addr().expect("address"), server());
    let mut both = [at(&kept), at(&short.0)];
    both.sort();

    old.leave();
    let new = New::begin(&pod, true).expect("start");
    assert!(new.waits());
    let mut known = new.passed();
    known.sort();
    assert_eq!(known, both, "what lives is known before anything is replaced");
    for netns in pods {
        new.describe(netns, Plaintext::Closed).await;
    }
    new.replace(usize::MAX);
    // The pods' own programs are still the old ones, and so are the listeners.
    drop(dial(&pod));
    assert!(
        is_waiting_at(&old_held[0]),
        "no verdict of the old agent holds any more"
    );
    let from = new.hold(pods[0], Plaintext::Closed).await.expect("enrol");
    let to = new.hold(pods[1], Plaintext::Closed).await.expect("enrol");
    new.tidy();
    drop(dial(&pod));
    assert!(is_waiting_at(&from), "the new agent decides");
    assert!(app.accept().is_err(), "nothing else arrived");
    new.let_pass(from.id, to.id, server());
    let third = (dial(&pod), arrived(&app));

    // What ended is forgotten, what lives can be ended, whichever version's programs saw it begin.
    drop((short, third));
    let until = Instant::now() + SOON;
    while new.passed().len() > 1 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(new.passed(), [at(&kept)]);
    new.cut_all();
    kept.set_read_timeout(Some(SOON)).expect("option");
    let cut = kept.read(&mut [0]).expect_err("cut");
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(new.passed(), []);
}

#[tokio::test]
async fn what_the_kernel_let_pass_is_known_to_the_next_version() {
    what_was_let_pass_is_known::<Now, Next>("lc").await;
}

#[tokio::test]
async fn what_the_kernel_let_pass_is_known_to_the_version_before() {
    what_was_let_pass_is_known::<Next, Now>("ld").await;
}

#[tokio::test]
async fn without_a_configuration_verdicts_of_another_layout_are_void() {
    let pod = Pod::new("le");
    let neighbour = pod.neighbour();
    let app = neighbour.inside(|| TcpListener::bind(server()).expect("bind"));
    app.set_nonblocking(true).expect("option");
    let old = Now::begin(&pod, false).expect("start");
    let held = direct(&old, [&pod.netns(), &neighbour.netns()]).await;
    drop((dial(&pod), arrived(&app)));
    drop(old);
    let new = Next::begin(&pod, false).expect("start");
    // It holds while nobody knows better.
    drop((dial(&pod), arrived(&app)));
    new.void();
    drop(dial(&pod));
    assert!(is_waiting_at(&held[0]));
    assert!(app.accept().is_err());
}

#[tokio::test]
async fn what_is_excluded_stays_so() {
    let pod = Pod::new("lj");
    pod.reach_from_node();
    let outside = TcpListener::bind(("10.99.0.1", EXCLUDED)).expect("bind");
    let bypasses = |when: &str| {
        let at = outside.local_addr().expect("address");
        let client = pod.inside(move || TcpStream::connect_timeout(&at, SOON));
        let (_, from) = outside.accept().expect("accept");
        let own = client.and_then(|client| client.local_addr()).ok();
        assert_eq!(Some(from), own, "{when}");
    };
    let (now, _held) = Now::take_over(&[&pod.netns()], &pod, false).await;
    bypasses("before");
    now.leave();
    let next = Next::begin(&pod, true).expect("start");
    next.describe(&pod.netns(), Plaintext::Closed).await;
    bypasses("described");
    let excluded = now.count("excluded");
    next.replace(usize::MAX);
    bypasses("attached");
    assert_eq!((now.count("excluded"), next.count("excluded")), (excluded, 1));
    let _held = next.hold(&pod.netns(), Plaintext::Closed).await.expect("enrol");
    bypasses("enrolled");
}

#[tokio::test]
async fn a_pin_that_nobody_wrote_to_since_is_not_believed() {
    let pod = Pod::new("lf");
    let netns = pod.netns();
    let now = Now::begin(&pod, false).expect("start");
    let _held = now.hold(&netns, Plaintext::Open).await.expect("enrol");
    drop(now);
    // The next version closes the pod, and ends before it has removed what the one before left.
    let next = Next::begin(&pod, false).expect("start");
    next.describe(&netns, Plaintext::Closed).await;
    next.replace(usize::MAX);
    let _held = next.hold(&netns, Plaintext::Closed).await.expect("enrol");
    drop(next);
    let forbidden = Forbidden::open(&pod);
    assert!(pins(&pod) > MAPS, "what the present version left is there");

    let now = Now::begin(&pod, false).expect("start");
    assert!(now.waits());
    forbidden.is_out_of_reach(&pod, "started");
    // Not even a word about the pod: it stays captured, and takes nothing.
    now.replace(usize::MAX);
    forbidden.is_out_of_reach(&pod, "attached");
    now.tidy();
    forbidden.is_out_of_reach(&pod, "tidied up");
    assert_eq!(pins(&pod), MAPS);
    assert!(
        now.count("plaintext_unknown") > 0,
        "the pod's program is the present version's"
    );
}

#[tokio::test]
async fn a_pod_that_cannot_be_enrolled_by_the_next_version_is_closed() {
    let pod = Pod::new("lg");
    let netns = pod.netns();
    let now = Now::begin(&pod, false).expect("start");
    let _held = now.hold(&netns, Plaintext::Open).await.expect("enrol");
    drop(now);
    let next = Next::begin(&pod, false).expect("start");
    next.describe(&netns, Plaintext::Open).await;
    next.replace(usize::MAX);
    let written = pod.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"));
    written.expect("forward");
    next.hold(&netns, Plaintext::Open)
        .await
        .err()
        .expect("a router is no pod");
    next.tidy();
    Forbidden::open(&pod).is_out_of_reach(&pod, "not enrolled");
    assert!(next.count("plaintext_unknown") > 0);
}

#[tokio::test]
async fn a_pod_that_a_successor_released_stays_so_when_its_agent_comes_back() {
    let pod = Pod::new("lk");
    pod.reach_from_node();
    let outside = TcpListener::bind("10.99.0.1:4446").expect("bind on the node");
    outside.set_nonblocking(true).expect("option");
    let (now, held) = Now::take_over(&[&pod.netns()], &pod, false).await;
    now.leave();
    let (next, next_held) = Next::take_over(&[&pod.netns()], &pod, true).await;
    for held in &held {
        next.withdraw(held.id).expect("withdraw");
        now.forget(held.id);
    }
    drop((next, next_held));
    now.come_back(&[]).await;
    let to = outside.local_addr().expect("address");
    let client = pod.inside(move || TcpStream::connect_timeout(&to, SOON));
    let client = client.expect("as without a mesh");
    let arrived = arrived(&outside).peer_addr().expect("address");
    assert_eq!(client.local_addr().expect("address"), arrived);
    drop(held);
}

#[tokio::test]
async fn pins_that_somebody_removed_are_made_up_for() {
    let pod = Pod::new("lh");
    let (now, _held) = Now::take_over(&[&pod.netns()], &pod, false).await;
    let forbidden = Forbidden::open(&pod);
    drop(now);
    for pin in std::fs::read_dir(pod.pinned_maps()).expect("pins") {
        std::fs::remove_file(pin.expect("pin").path()).expect("remove");
    }
    forbidden.is_out_of_reach(&pod, "without pins");
    let now = Now::begin(&pod, false).expect("start");
    assert!(now.waits(), "what the programs ask is not this agent's");
    forbidden.is_out_of_reach(&pod, "started");
    now.describe(&pod.netns(), Plaintext::Closed).await;
    now.replace(usize::MAX);
    let held = now.hold(&pod.netns(), Plaintext::Closed).await.expect("enrol");
    forbidden.is_out_of_reach(&pod, "enrolled");
    assert!(is_waiting_at(&held));
}

#[tokio::test]
async fn a_map_of_the_contract_that_is_another_is_refused_in_words() {
    let pod = Pod::new("li");
    let (now, _held) = Now::take_over(&[&pod.netns()], &pod, false).await;
    drop(now);
    let pin = |name: &str| pod.pinned_maps().join(name);
    std::fs::remove_file(pin("REGISTRY")).expect("remove");
    std::fs::rename(pin("DIRECT"), pin("REGISTRY")).expect("rename");
    for refused in [Now::begin(&pod, false).err(), Next::begin(&pod, false).err()] {
        let refused = refused.expect("refused");
        assert!(
            refused.contains("map REGISTRY") && refused.contains("Drain"),
            "{refused}"
        );
    }
}
