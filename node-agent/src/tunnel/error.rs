//! Why a tunnel did not come about.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use thiserror::Error;
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;

use crate::identify::{handshake_reason, is_refusal};

/// Why a tunnel did not come about. Cheap to clone: everybody who waited for one connection gets the same error.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The TCP connection to the other agent failed.
    #[error(
        "cannot connect to {address}: {source}; is TCP 15008 open in NetworkPolicies and security groups?"
    )]
    Dial {
        /// The pod's address, port 15008.
        address: SocketAddr,
        /// What the kernel said.
        source: Arc<io::Error>,
    },
    /// The TCP connection did not come about in time.
    #[error(
        "no answer from {address} within {after:?}; is TCP 15008 open in NetworkPolicies and security groups, and is \
         the pod still there?"
    )]
    DialTimeout {
        /// The pod's address, port 15008.
        address: SocketAddr,
        /// The deadline.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error(
        "TLS handshake with {address}: {source}; do both agents trust the same roots, and are both clocks right?"
    )]
    Tls {
        /// The other side.
        address: SocketAddr,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// The TLS handshake took too long.
    #[error(
        "TLS handshake with {address} not finished within {after:?}; is there an agent behind this address, or \
         something that accepts and stays silent?"
    )]
    TlsTimeout {
        /// The other side.
        address: SocketAddr,
        /// The deadline.
        after: Duration,
    },
    /// The peer's certificate is valid, but its identity is not one of a workload.
    #[error("certificate of {address}: {problem}; was it issued by the mesh's CA?")]
    PeerCertificate {
        /// The other side.
        address: SocketAddr,
        /// What is wrong with it.
        problem: Arc<str>,
    },
    /// Trust has changed since the tunnel was made.
    #[error("{address} is not believed any more: {why}")]
    Untrusted {
        /// The other side.
        address: SocketAddr,
        /// What is wrong with its certificate now.
        why: Arc<str>,
    },
    /// Somebody else answered at the workload's address.
    #[error(
        "{address} proved to be {found}, not {expected}; either the address went to another pod a moment ago, or \
         traffic is being intercepted"
    )]
    PeerIdentity {
        /// The other side.
        address: SocketAddr,
        /// Who should have answered.
        expected: SpiffeId,
        /// Who did.
        found: SpiffeId,
    },
    /// HTTP/2 did not start, or the connection was lost.
    #[error("HTTP/2 with {address}: {source}")]
    Http2 {
        /// The other side.
        address: SocketAddr,
        /// What HTTP/2 said.
        source: Arc<h2::Error>,
    },
    /// HTTP/2 did not start in time.
    #[error("HTTP/2 with {address} did not start within {after:?} after TLS; does HBONE listen there?")]
    Http2Timeout {
        /// The other side.
        address: SocketAddr,
        /// The deadline.
        after: Duration,
    },
    /// CONNECT was not answered in time.
    #[error(
        "{address} did not answer CONNECT {authority} within {after:?}; is its application's node overloaded?"
    )]
    ResponseTimeout {
        /// The other agent.
        address: SocketAddr,
        /// The target asked for.
        authority: SocketAddr,
        /// The deadline.
        after: Duration,
    },
    /// Neither CONNECT nor a PING were answered.
    #[error(
        "{address} has fallen silent: no answer to CONNECT {authority}, and none to PING within {after:?}"
    )]
    Silent {
        /// The other agent.
        address: SocketAddr,
        /// The target asked for.
        authority: SocketAddr,
        /// How long the PING was out.
        after: Duration,
    },
    /// The other agent refused CONNECT.
    #[error("{address} refused CONNECT {authority}: {status}, reason {reason}")]
    Refused {
        /// The other agent.
        address: SocketAddr,
        /// The target asked for.
        authority: SocketAddr,
        /// The answer.
        status: StatusCode,
        /// The other agent's reason, [`Reason::TunnelRefused`] when it gave none that is known here.
        reason: Reason,
    },
    /// The source's certificate is no longer valid.
    #[error("the certificate of {identity} has expired; is the CA reachable, and is the clock right?")]
    Expired {
        /// Whose certificate.
        identity: SpiffeId,
    },
    /// A header or authority that cannot be sent.
    #[error("CONNECT {authority} cannot be sent: {problem}")]
    Request {
        /// The target asked for.
        authority: SocketAddr,
        /// What is wrong.
        problem: Arc<str>,
    },
    /// The destination left the mesh, or its address went to another identity, while the source waited.
    #[error("{address} no longer belongs to {identity}")]
    DestinationLeft {
        /// The pod's address, port 15008.
        address: SocketAddr,
        /// Who was there.
        identity: SpiffeId,
    },
    /// The source workload left this node while it waited.
    #[error("the source workload left this node")]
    Evicted,
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Draining,
}

impl TunnelError {
    /// Whether it rests on what one of the two sides believed when the tunnel was made.
    pub(super) fn is_about_trust(&self) -> bool {
        // What a peer answers to CONNECT is its own word.
        matches!(
            self,
            Self::Tls { .. } | Self::Http2 { .. } | Self::Untrusted { .. }
        ) && matches!(self.reason(), Reason::PeerUntrusted | Reason::CertificateRefused)
    }

    /// The stable code for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial { source, .. } => match source.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Reason::ConnectRefused,
                io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                _ => Reason::ConnectUnreachable,
            },
            Self::DialTimeout { .. } => Reason::ConnectTimeout,
            Self::Tls { source, .. } => handshake_reason(source),
            Self::Untrusted { .. } => Reason::PeerUntrusted,
            Self::PeerCertificate { .. } => Reason::PeerIdentityMismatch,
            Self::TlsTimeout { .. } | Self::Http2Timeout { .. } => Reason::HandshakeTimeout,
            Self::PeerIdentity { .. } => Reason::PeerIdentityMismatch,
            // In TLS 1.3 the client is done before the server has judged its certificate: the refusal comes as an
            // alert where HTTP/2 expects frames (RFC 8446, section 4.4.2.4).
            Self::Http2 { source, .. } => match source.get_io() {
                Some(io) if is_refusal(io) => Reason::CertificateRefused,
                Some(io) if is_tls(io) => handshake_reason(io),
                Some(_) => Reason::TunnelLost,
                None => Reason::TunnelRefused,
            },
            Self::Silent { .. } => Reason::TunnelLost,
            Self::DestinationLeft { .. } => Reason::UnknownWorkload,
            Self::ResponseTimeout { .. } => Reason::ConnectTimeout,
            Self::Refused { reason, .. } => *reason,
            Self::Expired { .. } => Reason::NoCertificate,
            Self::Request { .. } => Reason::Internal,
            Self::Evicted => Reason::Cancelled,
            Self::Draining => Reason::AgentDraining,
        }
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}
