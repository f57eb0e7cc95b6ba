//! Whom the agent believes: the roots of one trust domain and its aliases, and what they have revoked, replaced whole while it runs.

mod anchors;
mod crl;
mod guard;

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tramline_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use webpki::KeyUsage;

pub(super) use self::anchors::{
    Anchors, certificate_time, certificates, fingerprint, is_ours, trust_domain_uri,
};
pub use self::anchors::{CrlInfo, RootInfo};
pub(super) use self::crl::Crl;
pub use self::guard::{Believed, PeerRole, TrustGuard};
use super::peer::peer_identity;
use super::verify::PeerError;

/// What is believed at this moment. Every handshake asks it, so a change needs no new TLS configurations.
#[derive(Debug)]
pub struct Trust {
    trust_domains: TrustDomains,
    provider: Arc<CryptoProvider>,
    present: ArcSwap<Present>,
    /// Tells the generation of each change after it was stored: live connections are re-checked by it.
    changes: watch::Sender<u64>,
}

/// What is believed, and the how manyeth change it is: replaced together, so that whoever sees the one sees the other.
#[derive(Debug)]
struct Present {
    generation: u64,
    anchors: Arc<Anchors>,
}

/// What is believed, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustSnapshot {
    /// Changes since the agent started.
    pub generation: u64,
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The roots, the one that lives longest first.
    pub roots: Vec<RootInfo>,
    /// The revocation lists.
    pub crls: Vec<CrlInfo>,
}

impl Trust {
    pub(super) fn new(
        trust_domains: TrustDomains,
        provider: Arc<CryptoProvider>,
        anchors: Arc<Anchors>,
    ) -> Arc<Self> {
        Arc::new(Self {
            trust_domains,
            provider,
            present: ArcSwap::from_pointee(Present {
                generation: 0,
                anchors,
            }),
            changes: watch::Sender::new(0),
        })
    }

    /// Believes `anchors` and nothing else from now on, and has live connections re-checked.
    pub(super) fn replace(&self, anchors: Arc<Anchors>) {
        // Under the channel's lock: changes come one after the other.
        self.changes.send_modify(|generation| {
            *generation += 1;
            self.present.store(Arc::new(Present {
                generation: *generation,
                anchors,
            }));
        });
    }

    /// Changes since the agent started.
    fn generation(&self) -> u64 {
        self.present.load().generation
    }

    /// Tells of changes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn trust_domains(&self) -> &TrustDomains {
        &self.trust_domains
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// Watches over a peer. To be made before its handshake: no change between the two is missed then.
    pub fn guard(self: &Arc<Self>) -> TrustGuard {
        TrustGuard::new(self.clone())
    }

    /// The state for people and metrics.
    pub fn snapshot(&self) -> TrustSnapshot {
        let present = self.present.load();
        let anchors = &present.anchors;
        TrustSnapshot {
            generation: present.generation,
            trust_domain: self.trust_domains.own().clone(),
            roots: anchors.roots().to_vec(),
            crls: anchors.crls().map(|crl| crl.info().clone()).collect(),
        }
    }

    /// The identity that a chain proves at `now` for `usage`.
    pub(super) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<SpiffeId, rustls::Error> {
        let algorithms = self.provider.signature_verification_algorithms.all;
        self.present
            .load()
            .anchors
            .verify(algorithms, leaf, intermediates, now, usage)
            .map_err(chain_error)?;
        let identity = peer_identity(leaf).map_err(PeerError::from)?;
        if !self.trust_domains.contains(identity.trust_domain()) {
            return Err(PeerError::TrustDomain(identity).into());
        }
        Ok(identity)
    }
}

/// The error that makes rustls send the fitting alert; the rest keeps webpki's own words.
fn chain_error(error: webpki::Error) -> rustls::Error {
    match error {
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::CertRevoked => CertificateError::Revoked,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
    .into()
}

#[cfg(test)]
mod tests;
