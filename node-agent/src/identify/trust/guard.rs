//! Live connections follow trust: a peer that is not believed any more is to be cut.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use webpki::KeyUsage;

use super::Trust;

/// What the peer's certificate has to be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// It came to us.
    Client,
    /// We went to it.
    Server,
}

/// Watches over one peer.
pub struct TrustGuard {
    trust: Arc<Trust>,
    changes: watch::Receiver<u64>,
}

impl TrustGuard {
    pub(super) fn new(trust: Arc<Trust>, changes: watch::Receiver<u64>) -> Self {
        Self { trust, changes }
    }

    /// Resolves, with the reason for a person, once the peer with this chain is not believed any more. Cancelling it
    /// loses nothing.
    pub async fn lost(&mut self, chain: &[CertificateDer<'static>], role: PeerRole) -> Arc<str> {
        // A change during the check is seen by the next turn.
        while self.changes.changed().await.is_ok() {
            if let Err(why) = self.check(chain, role) {
                return why;
            }
        }
        // Never: the guard keeps the trust, and with it the sender.
        std::future::pending().await
    }

    fn check(&self, chain: &[CertificateDer<'static>], role: PeerRole) -> Result<(), Arc<str>> {
        let (leaf, intermediates) = chain.split_first().ok_or("the peer has shown no certificate")?;
        let usage = match role {
            PeerRole::Client => KeyUsage::client_auth(),
            PeerRole::Server => KeyUsage::server_auth(),
        };
        self.trust
            .verify(leaf, intermediates, UnixTime::now(), usage)
            .map(drop)
            .map_err(|error| Arc::from(format!("trust has changed: {error}")))
    }
}

impl fmt::Debug for TrustGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustGuard").finish_non_exhaustive()
    }
}
