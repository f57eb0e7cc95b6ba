//! What a verified peer certificate says: who, and until when.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use tramline_core::identity::SpiffeId;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::TunnelError;
use crate::identify::peer_identity;

/// The peer of a finished handshake.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) identity: SpiffeId,
    pub(super) not_after: SystemTime,
    /// As it was shown: verified again whenever trust changes.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl Peer {
    /// Reads the chain that TLS has verified already.
    pub(super) fn read(
        chain: Option<&[CertificateDer<'_>]>,
        address: SocketAddr,
    ) -> Result<Self, TunnelError> {
        let problem = |problem: String| TunnelError::PeerCertificate {
            address,
            problem: Arc::from(problem),
        };
        let chain = chain.unwrap_or_default();
        let leaf = chain
            .first()
            .ok_or_else(|| problem("no certificate was sent".to_owned()))?;
        let identity = peer_identity(leaf).map_err(|e| problem(e.to_string()))?;
        let (_, certificate) =
            X509Certificate::from_der(leaf).map_err(|_| problem("not an X.509 certificate".to_owned()))?;
        let not_after = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            identity,
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(not_after),
            chain: chain
                .iter()
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
        })
    }
}
