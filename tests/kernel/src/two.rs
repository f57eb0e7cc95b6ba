//! Two pods side by side, for what the kernel does between them.

use super::{NEIGHBOUR_V4, Neighbour, Pod, rows};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use tramline_common::map::plaintext;
use tramline_node_agent::broker::{Broker, Enrolled, KernelVerdict};

/// What is to happen happens within this.
pub const SOON: Duration = Duration::from_secs(2);

/// Two pods side by side, a server in the second, which refuses plaintext.
pub struct Two {
    /// Has both of them.
    pub broker: Broker,
    /// The first, from which this process dials.
    pub source: Pod,
    /// The same, enrolled.
    pub from: Enrolled,
    /// The second, enrolled.
    pub to: Enrolled,
    /// The same.
    pub neighbour: Neighbour,
}

/// The second pod's server.
#[expect(clippy::unwrap_used, reason = "written in this file")]
#[must_use]
pub fn server() -> SocketAddr {
    SocketAddr::new(NEIGHBOUR_V4.parse().unwrap(), 80)
}

/// Makes them; `tag` is one or two letters.
pub async fn two(tag: &str) -> (Two, TcpListener) {
    let source = Pod::new(tag);
    let neighbour = source.neighbour();
    let broker = Broker::start(&source.settings()).expect("broker");
    let app = neighbour.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let from = broker.enroll(&source.netns(), &rows(plaintext::DROP)).await;
    let to = broker.enroll(&neighbour.netns(), &rows(plaintext::DROP)).await;
    let two = Two {
        from: from.expect("enroll"),
        to: to.expect("enroll"),
        broker,
        source,
        neighbour,
    };
    (two, app)
}

impl Two {
    /// Leaves a verdict on the second pod's server.
    pub fn decide(&self, verdict: KernelVerdict) {
        let destination = match verdict {
            KernelVerdict::Direct(pod) | KernelVerdict::Deny(pod) => Some(pod),
            KernelVerdict::Outside => None,
        };
        let versions = self
            .broker
            .versions(self.from.id, destination)
            .expect("both pods have a version");
        self.broker
            .set_verdict(self.from.id, server(), verdict, versions)
            .expect("verdict");
    }

    /// Dials the second pod's server from the first.
    pub fn dial(&self) -> io::Result<TcpStream> {
        self.dial_to(server())
    }

    /// Dials anything from the first pod.
    pub fn dial_to(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.source.inside(move || TcpStream::connect_timeout(&to, SOON))
    }

    /// Whether a connection waits at one of the agent's listeners.
    pub fn waits(listeners: &[TcpListener]) -> Option<(TcpStream, SocketAddr)> {
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            for listener in listeners {
                if let Ok(accepted) = listener.accept() {
                    return Some(accepted);
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// One of the programs' counters.
    pub fn count(&self, name: &str) -> u64 {
        let counters = self.broker.counters();
        let found = counters.iter().find(|(event, _)| *event == name);
        found.map_or(0, |(_, count)| *count)
    }
}
