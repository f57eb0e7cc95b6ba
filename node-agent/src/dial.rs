//! Connections that the agent opens: to applications of this node, and out of a pod.

mod application;
mod egress;

pub(crate) use application::{Client, application};
pub(crate) use egress::egress;

use crate::broker::BrokerError;
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpSocket, TcpStream};
use tramline_core::reason::Reason;

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The broker made no socket.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The other side, or the network, said no.
    #[error("connecting to {address}: {source}")]
    Connect {
        /// Who was dialled.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Nobody answered.
    #[error("connecting to {address}: no answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// Who was dialled.
        address: SocketAddr,
        /// How long it was waited for.
        after: Duration,
    },
}

impl DialError {
    /// The same as an IO error, for callers that know of sockets only.
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Connect { source, .. } => source,
            Self::Timeout { .. } => io::Error::new(io::ErrorKind::TimedOut, self),
            Self::Broker(_) => io::Error::other(self),
        }
    }

    /// The reason for the access log.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Broker(_) => Reason::Internal,
            Self::Timeout { .. } => Reason::ConnectTimeout,
            Self::Connect { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reason::ConnectRefused,
                io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                    Reason::ConnectUnreachable
                }
                _ => Reason::Internal,
            },
        }
    }
}

/// Connects a prepared socket of the broker.
async fn connect(
    socket: socket2::Socket,
    address: SocketAddr,
    within: Duration,
) -> Result<TcpStream, DialError> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(socket));
    match tokio::time::timeout(within, socket.connect(address)).await {
        Ok(connected) => connected.map_err(|source| DialError::Connect { address, source }),
        Err(_) => Err(DialError::Timeout {
            address,
            after: within,
        }),
    }
}
