//! An agent with another layout of maps ends somewhere between its start and its last step. Whatever it left, nothing of the pods
//! escapes and nothing is let in, and whoever comes next serves them.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use std::{
    any::Any,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};
use tramline_kernel_tests::{
    Neighbour, Pod,
    traffic::Forbidden,
    versions::{Agent, Held, Next, Now, Plaintext},
};

/// How far the successor gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Point {
    Started,
    Described,
    /// The sockets' events are told to its programs, connects not yet.
    EventsAttached,
    /// All but what captures connects over IPv6.
    HalfAttached,
    Attached,
    OneEnrolled,
    AllEnrolled,
    Settled,
}

const POINTS: [Point; 8] = [
    Point::Started,
    Point::Described,
    Point::EventsAttached,
    Point::HalfAttached,
    Point::Attached,
    Point::OneEnrolled,
    Point::AllEnrolled,
    Point::Settled,
];

/// Two pods; the second has a neighbour's namespace.
struct Stage {
    pod: Pod,
    _neighbour: Neighbour,
    pods: [PathBuf; 2],
    forbidden: Forbidden,
}

impl Stage {
    fn new(tag: &str) -> Self {
        let pod = Pod::new(tag);
        let neighbour = pod.neighbour();
        Self {
            pods: [pod.netns(), neighbour.netns()],
            forbidden: Forbidden::open(&pod),
            _neighbour: neighbour,
            pod,
        }
    }

    /// A whole agent, from its start on.
    async fn serve<A: Agent>(&self, succeeds: bool) -> (A, Vec<Held>) {
        let pods = self.pods.each_ref().map(PathBuf::as_path);
        A::take_over(&pods, &self.pod, succeeds).await
    }

    /// One that gets as far as `end`.
    async fn crash<A: Agent>(&self, end: Point, succeeds: bool) -> Box<dyn Any> {
        let agent = A::begin(&self.pod, succeeds).expect("start");
        assert!(agent.waits());
        let mut held = Vec::new();
        for point in POINTS.into_iter().filter(|point| *point <= end) {
            match point {
                Point::Started => {}
                Point::Described => {
                    for netns in &self.pods {
                        agent.describe(netns, Plaintext::Closed).await;
                    }
                }
                Point::EventsAttached => agent.replace(1),
                Point::HalfAttached => agent.replace(4),
                Point::Attached => agent.replace(usize::MAX),
                Point::OneEnrolled => held.push(agent.hold(&self.pods[0], Plaintext::Closed).await),
                Point::AllEnrolled => held.push(agent.hold(&self.pods[1], Plaintext::Closed).await),
                Point::Settled => agent.tidy(),
            }
        }
        assert!(held.iter().all(Result::is_ok));
        self.forbidden
            .is_out_of_reach(&self.pod, &format!("it is at {end:?}"));
        Box::new((agent, held))
    }

    /// Both families are captured by who serves now.
    fn is_served_by(&self, held: &Held, when: &str) {
        let accepted = || held.outbound.iter().find_map(|listener| listener.accept().ok());
        for to in ["10.96.0.10:80", "[fd96::10]:80"] {
            let to: SocketAddr = to.parse().expect("an address");
            let dialled = self
                .pod
                .inside(move || TcpStream::connect_timeout(&to, Duration::from_secs(3)));
            dialled.unwrap_or_else(|error| panic!("{to}, {when}: {error}"));
            let until = Instant::now() + Duration::from_secs(2);
            // Others may wait there, from before.
            while accepted().is_none_or(|(stream, _)| stream.local_addr().ok() != Some(to)) {
                assert!(
                    Instant::now() < until,
                    "{to} is captured by somebody else: {when}"
                );
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.forbidden.is_out_of_reach(&self.pod, when);
    }
}

/// The agent before lives, and takes everything back.
async fn taken_back<Old: Agent, New: Agent>(tag: &str) {
    let stage = Stage::new(tag);
    let (old, held) = stage.serve::<Old>(false).await;
    for point in POINTS {
        old.leave();
        drop(stage.crash::<New>(point, true).await);
        let when = format!("taken back after {point:?}");
        stage
            .forbidden
            .is_out_of_reach(&stage.pod, &format!("before it is {when}"));
        old.come_back(&[held[0].id, held[1].id]).await;
        stage.is_served_by(&held[0], &when);
        let captured = old.count("captured");
        stage.is_served_by(&held[0], &when);
        assert!(
            old.count("captured") >= captured + 2,
            "its own programs count in its own map: {when}"
        );
    }
}

/// Everybody is dead, and an agent of some version is started.
async fn followed<Old: Agent, New: Agent, Then: Agent>(tag: &str) {
    let stage = Stage::new(tag);
    for point in POINTS {
        let old = stage.serve::<Old>(false).await;
        drop(old);
        drop(stage.crash::<New>(point, false).await);
        let when = format!("another agent after {point:?}");
        stage
            .forbidden
            .is_out_of_reach(&stage.pod, &format!("before {when}"));
        let (then, held) = stage.serve::<Then>(false).await;
        stage.is_served_by(&held[0], &when);
        drop(then);
    }
}

#[tokio::test]
async fn the_present_version_takes_everything_back_from_the_next() {
    taken_back::<Now, Next>("pa").await;
}

#[tokio::test]
async fn the_next_version_takes_everything_back_from_the_present() {
    taken_back::<Next, Now>("pb").await;
}

#[tokio::test]
async fn the_present_version_follows_what_a_crashed_upgrade_left() {
    followed::<Now, Next, Now>("pc").await;
}

#[tokio::test]
async fn the_next_version_follows_what_a_crashed_upgrade_left() {
    followed::<Now, Next, Next>("pd").await;
}

#[tokio::test]
async fn the_next_version_follows_what_a_crashed_downgrade_left() {
    followed::<Next, Now, Next>("pe").await;
}
