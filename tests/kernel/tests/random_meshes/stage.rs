//! Real pods and somebody outside, real connections between them, and where each of them arrives.

use crate::state::{LISTENING, LIVES, OUTSIDE, ip};
use socket2::{Domain, SockRef, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use tramline_common::map::plaintext;
use tramline_fuzz::world::PODS;
use tramline_kernel_tests::{
    node::{Node, Place},
    rows,
};
use tramline_node_agent::broker::{Broker, Enrolled};

const SOON: Duration = Duration::from_secs(5);

/// Who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Pod(usize),
    /// From this address of [`OUTSIDE`].
    Outside(usize),
}

/// One connection.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    pub from: From,
    pub to: SocketAddr,
    /// By an IPv6 socket, though the address is one of IPv4.
    pub mapped: bool,
}

/// Where it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// To the application of this pod that listens on this port.
    Application(usize, u16),
    /// To somebody outside the mesh.
    Outside,
    /// To the agent, as what the pod dials.
    Captured,
    /// To the agent, as plaintext to decide about.
    Asked,
    /// Nowhere: `connect` said so.
    Refused(io::ErrorKind),
}

struct Pod {
    place: Place,
    enrolled: Enrolled,
    applications: Vec<TcpListener>,
}

/// See the module.
pub struct Stage {
    pub broker: Broker,
    pods: Vec<Pod>,
    outside: Place,
    servers: Vec<TcpListener>,
    _node: Node,
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(64)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Stage {
    /// Pods enrolled, closed to all plaintext.
    pub async fn new() -> Self {
        let node = Node::new("rm");
        let broker = Broker::start(&node.settings()).expect("broker");
        let mut pods = Vec::new();
        for (number, (_, v4, v6)) in LIVES.iter().enumerate() {
            let place = node.place(&format!("p{number}"), &[ip(v4), ip(v6)]);
            let applications = LISTENING.iter().map(|port| {
                let port = *port;
                place.run(move || listen(port)).expect("listen")
            });
            let applications = applications.collect();
            let enrolled = broker.enroll(&place.netns(), &rows(plaintext::DROP)).await;
            pods.push(Pod {
                place,
                enrolled: enrolled.expect("enroll"),
                applications,
            });
        }
        let outside = node.place("out", &OUTSIDE.map(ip));
        let servers = vec![outside.run(|| listen(80)).expect("listen")];
        Self {
            broker,
            pods,
            outside,
            servers,
            _node: node,
        }
    }

    /// How the kernel calls a pod.
    pub fn id(&self, pod: usize) -> tramline_common::PodId {
        self.pods[pod].enrolled.id
    }

    /// Dials, and answers where that came to.
    pub fn dial(&self, dial: Dial) -> Came {
        let Dial { from, to, mapped } = dial;
        let (place, bound) = match from {
            From::Pod(pod) => (&self.pods[pod].place, None),
            From::Outside(address) => (&self.outside, Some(ip(OUTSIDE[address]))),
        };
        match place.run(move || connect(bound, to, mapped)) {
            Err(error) => Came::Refused(error.kind()),
            Ok(stream) => {
                let local = stream.local_addr().expect("address");
                self.whereabouts(from, to, SocketAddr::new(local.ip().to_canonical(), local.port()))
            }
        }
    }

    /// Looks where a connection waits that has come up.
    fn whereabouts(&self, from: From, to: SocketAddr, client: SocketAddr) -> Came {
        let mut candidates: Vec<(&[TcpListener], Came)> = Vec::new();
        if let From::Pod(pod) = from {
            candidates.push((&self.pods[pod].enrolled.listeners.outbound, Came::Captured));
        }
        let pods = match pod_at(to.ip()) {
            Some(pod) => pod..pod + 1,
            // A Service leads to one of its own, or out of the mesh.
            None => {
                candidates.push((&self.servers, Came::Outside));
                0..self.pods.len()
            }
        };
        for (number, pod) in self.pods.iter().enumerate().take(pods.end).skip(pods.start) {
            for (at, port) in LISTENING.iter().enumerate() {
                candidates.push((&pod.applications[at..=at], Came::Application(number, *port)));
            }
            candidates.push((&pod.enrolled.listeners.plaintext, Came::Asked));
        }
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            for (listeners, came) in &candidates {
                for listener in *listeners {
                    let Ok((accepted, peer)) = listener.accept() else {
                        continue;
                    };
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    assert_eq!(peer, client, "somebody else's connection waited");
                    reset(&accepted);
                    return *came;
                }
            }
            std::thread::yield_now();
        }
        panic!("{client} to {to} came up, and nobody that was thought of has it");
    }
}

/// The pod with this address.
pub fn pod_at(address: IpAddr) -> Option<usize> {
    let has = |(_, v4, v6): &(&str, &str, &str)| ip(v4) == address || ip(v6) == address;
    LIVES.iter().position(has).filter(|at| *at < PODS.len())
}

/// Leaves nothing behind: tens of thousands of connections would fill the ports.
fn reset(stream: &TcpStream) {
    SockRef::from(stream)
        .set_linger(Some(Duration::ZERO))
        .expect("option");
}

fn connect(bound: Option<IpAddr>, to: SocketAddr, mapped: bool) -> io::Result<TcpStream> {
    let to = match to.ip() {
        IpAddr::V4(v4) if mapped => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
        _ => to,
    };
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    if let Some(bound) = bound {
        socket.bind(&SocketAddr::new(bound, 0).into())?;
    }
    // Nothing on the way loses anything: what takes so long was dropped.
    socket.connect_timeout(&to.into(), SOON)?;
    let stream = TcpStream::from(socket);
    reset(&stream);
    Ok(stream)
}
