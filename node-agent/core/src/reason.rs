//! Why a connection ended: one stable code for logs, metrics and tests.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $code:literal, $flags:literal, $text:literal;)*) => {
        /// Why a connection ended the way it did.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, for tests and for metrics that exist before the first event.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Stable code; never changes once released.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The value of Istio's `response_flags`: ztunnel's where it has one, else Envoy's.
            pub const fn response_flags(self) -> &'static str {
                match self { $(Self::$variant => $flags,)* }
            }

            /// One sentence for a person.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// Both sides finished.
    Ok => "ok", "-", "both sides finished";
    /// An AuthorizationPolicy denied the peer, or none of the ALLOW policies allowed it.
    PolicyDenied => "policy_denied", "DENY", "an authorization policy does not let this peer in";
    /// PeerAuthentication STRICT and a peer without identity.
    MtlsRequired => "mtls_required", "DENY", "mutual TLS is required here and the peer came in plaintext";
    /// A Service without a usable endpoint.
    NoHealthyEndpoint => "no_healthy_endpoint", "UH", "the service has no ready endpoint left to try";
    /// A Service that keeps to the client's node, where none of its endpoints is.
    NoLocalEndpoint => "no_local_endpoint", "UH", "the service keeps to this node, and none of its ready endpoints is here";
    /// A Service address with a port the Service does not have.
    UnknownServicePort => "unknown_service_port", "NR", "the service has no such port";
    /// The destination answered with a reset.
    ConnectRefused => "connect_refused", "CONNECT", "the destination refused the connection";
    /// The destination did not answer in time.
    ConnectTimeout => "connect_timeout", "CONNECT", "the destination did not answer in time";
    /// No route, or the network said so.
    ConnectUnreachable => "connect_unreachable", "CONNECT", "the destination cannot be reached";
    /// The TLS handshake failed.
    TlsFailure => "tls_failure", "TLS_FAILURE", "the TLS handshake failed";
    /// The peer proved another identity than the one expected.
    PeerIdentityMismatch => "peer_identity_mismatch", "IDENTITY_ERROR", "the peer has another identity than expected";
    /// No trusted root vouches for the peer, or it was revoked, before or while the connection was open.
    PeerUntrusted => "peer_untrusted", "IDENTITY_ERROR", "the peer's certificate is revoked or its root is not trusted (any more)";
    /// The other agent refused the certificate that this one showed: the other end's [`Self::PeerUntrusted`].
    CertificateRefused => "certificate_refused", "IDENTITY_ERROR", "the other agent does not accept this workload's certificate";
    /// TLS or HTTP/2 did not get ready in time.
    HandshakeTimeout => "handshake_timeout", "H2_HANDSHAKE_FAILURE", "the tunnel's handshake took too long";
    /// The other agent answered CONNECT with a refusal of no closer kind.
    TunnelRefused => "tunnel_refused", "CONNECT", "the agent at the destination refused the tunnel";
    /// The tunnel's peer fell silent, or its connection broke.
    TunnelLost => "tunnel_lost", "UC", "the tunnel to the other agent was lost";
    /// CONNECT named an address that is not the workload's.
    AuthorityMismatch => "authority_mismatch", "NR", "the tunnel's target is not an address of this workload";
    /// No workload is known there.
    UnknownWorkload => "unknown_workload", "NR", "no such workload is known to this agent";
    /// The agent is shutting down.
    AgentDraining => "agent_draining", "-", "the agent is shutting down";
    /// No valid certificate for the workload.
    NoCertificate => "no_certificate", "IDENTITY_ERROR", "the workload has no valid certificate";
    /// A bound on connections, streams or memory was reached.
    LimitReached => "limit_reached", "UO", "a limit of the agent was reached";
    /// The source closed or reset the connection before the destination was reached.
    ClientGone => "client_gone", "DC", "the source left before the destination was reached";
    /// The source reset the connection.
    ResetBySource => "reset_by_source", "DC", "the source reset the connection";
    /// The destination reset the connection.
    ResetByDestination => "reset_by_destination", "UC", "the destination reset the connection";
    /// Nothing moved for too long.
    IdleTimeout => "idle_timeout", "SI", "nothing was transferred for too long";
    /// The agent was about to connect to itself.
    CaptureLoop => "capture_loop", "NR", "the connection would have led back to the agent";
    /// The task that carried the connection ended without saying how, as at the agent's shutdown.
    Cancelled => "cancelled", "-", "the agent stopped carrying the connection";
    /// A defect of the agent.
    Internal => "internal", "-", "an internal error of the agent";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn codes_are_unique_snake_case() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for code in codes {
            assert!(
                code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{code}"
            );
        }
    }
}
