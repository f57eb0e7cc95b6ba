//! Peers follow trust: one that is not believed any more gets nothing new and is to be cut.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls_pki_types::{CertificateDer, UnixTime};
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

/// The trust of the moment at which a handshake begins: no change between the two is missed then.
pub struct TrustGuard {
    trust: Arc<Trust>,
    generation: u64,
}

impl TrustGuard {
    pub(super) fn new(trust: Arc<Trust>) -> Self {
        let generation = trust.generation();
        Self { trust, generation }
    }

    /// Watches over the peer that has shown this chain, the leaf first, and was believed.
    pub fn over(self, chain: Vec<CertificateDer<'static>>, role: PeerRole) -> Believed {
        Believed {
            trust: self.trust,
            chain,
            role,
            generation: AtomicU64::new(self.generation),
        }
    }
}

/// A peer that was believed at its handshake.
pub struct Believed {
    trust: Arc<Trust>,
    chain: Vec<CertificateDer<'static>>,
    role: PeerRole,
    /// The latest trust that it was found good by.
    generation: AtomicU64,
}

impl Believed {
    /// Whether it is believed at this moment; verifies again where trust has changed, and is cheap where it has not. To
    /// be asked before each use: who waits for [`Self::lost`] is told a moment later.
    ///
    /// # Errors
    /// The reason, for a person.
    pub fn now(&self) -> Result<(), Arc<str>> {
        // Before the verification: a change during it is for the next one.
        let generation = self.trust.generation();
        if self.generation.load(Ordering::Acquire) == generation {
            return Ok(());
        }
        self.verify()?;
        self.generation.fetch_max(generation, Ordering::AcqRel);
        Ok(())
    }

    /// Resolves, with the reason for a person, once it is not believed any more. Cancelling it loses nothing.
    pub async fn lost(&self) -> Arc<str> {
        let mut changes = self.trust.changes();
        loop {
            // A change during the check is seen by the next turn.
            if let Err(why) = self.now() {
                return why;
            }
            if changes.changed().await.is_err() {
                // Never: this keeps the trust, and with it the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn verify(&self) -> Result<(), Arc<str>> {
        let (leaf, intermediates) = self
            .chain
            .split_first()
            .ok_or("the peer has shown no certificate")?;
        let usage = match self.role {
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

impl fmt::Debug for Believed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Believed")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
