//! To an application of this node, from the client's own address.

use super::{DialError, connect};
use crate::broker::Broker;
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;
use tramline_common::PodId;

/// How long a SYN with the client's own port is waited for, before a port of the kernel's choice is taken: the
/// application may hold a connection with this very 4-tuple that did not come through the agent.
const KEPT_PORT_ANSWER: Duration = Duration::from_millis(500);

/// Ports tried when one has to be chosen that is not among `taken`.
const CHOICES: usize = 64;

/// As whom the application sees the connection.
pub(crate) enum Client<'a> {
    /// The client's address and, where it is free, its port.
    Exactly(SocketAddr),
    /// The client's address with another port: the client's own connection ends at the agent in this same namespace,
    /// and so do those with the ports `is_taken` knows.
    Address(IpAddr, &'a (dyn Fn(u16) -> bool + Sync)),
}

/// Connects to `address` of the pod.
pub(crate) async fn application(
    broker: &Broker,
    pod: PodId,
    client: &Client<'_>,
    address: SocketAddr,
    within: Duration,
) -> Result<TcpStream, DialError> {
    let ip = match client {
        Client::Exactly(client) => client.ip(),
        Client::Address(ip, _) => *ip,
    };
    if ip == address.ip() || ip.is_ipv4() != address.is_ipv4() {
        // The pod talks to itself, or the families differ: then no foreign address can be shown.
        let socket = broker.egress_socket(pod, address.ip())?;
        return connect(socket, address, within).await;
    }
    if let Some(connected) = with_chosen_port(broker, pod, client, address, within).await? {
        return Ok(connected);
    }
    let socket = broker.delivery_socket(pod, ip)?;
    // The kernel then looks for a port that is free for this destination, at connect; a bind that looks for one free
    // for all destinations costs 5 ms once half of the ports are in TIME_WAIT.
    let refused = |source| DialError::Connect { address, source };
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true).map_err(|errno| refused(errno.into()))?;
    socket.bind(&SocketAddr::new(ip, 0).into()).map_err(refused)?;
    connect(socket, address, within).await
}

/// Tries ports of our choice; `None` if none of them was to be had.
async fn with_chosen_port(
    broker: &Broker,
    pod: PodId,
    client: &Client<'_>,
    address: SocketAddr,
    within: Duration,
) -> Result<Option<TcpStream>, DialError> {
    match client {
        Client::Exactly(client) if client.port() != 0 => {
            let patience = within.min(KEPT_PORT_ANSWER);
            match bound(broker, pod, *client, address, patience).await {
                Ok(connected) => Ok(Some(connected)),
                Err(DialError::Connect { source, .. }) if is_taken(&source) => Ok(None),
                Err(DialError::Timeout { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
        Client::Exactly(_) => Ok(None),
        Client::Address(ip, taken) => {
            for _ in 0..CHOICES {
                // The ephemeral range of RFC 6335.
                let port = 49_152 + (crate::random::u64() % 16_384) as u16;
                if taken(port) {
                    continue;
                }
                match bound(broker, pod, SocketAddr::new(*ip, port), address, within).await {
                    Ok(connected) => return Ok(Some(connected)),
                    Err(DialError::Connect { source, .. }) if is_taken(&source) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        }
    }
}

async fn bound(
    broker: &Broker,
    pod: PodId,
    client: SocketAddr,
    address: SocketAddr,
    within: Duration,
) -> Result<TcpStream, DialError> {
    let socket = broker.delivery_socket(pod, client.ip())?;
    socket
        .bind(&client.into())
        .map_err(|source| DialError::Connect { address, source })?;
    connect(socket, address, within).await
}

/// The port, or the 4-tuple, is in use.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable
    )
}
