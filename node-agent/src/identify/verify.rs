//! The two questions of mutual TLS: does the chain lead to our root, and who is the peer.
//!
//! There are no host names here: SNI and DNS names are neither sent nor read.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use tramline_core::identity::{SpiffeId, TrustDomain};
use tramline_core::reason::Reason;
use webpki::{EndEntityCert, KeyUsage};

use super::peer::{PeerIdentityError, peer_identity};

/// Why a peer with a chain to our root is still not let in. Found inside of [`rustls::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The certificate proves no identity.
    #[error("the peer proves no identity: {0}")]
    Identity(#[from] PeerIdentityError),
    /// Our root vouches for our trust domain and for no other.
    #[error("the peer is {0}, of another trust domain")]
    TrustDomain(SpiffeId),
    /// Somebody else answers at the workload's address.
    #[error("the peer is {found}, expected is {expected}")]
    Mismatch {
        /// Who should have answered.
        expected: SpiffeId,
        /// Who did.
        found: SpiffeId,
    },
}

impl From<PeerError> for rustls::Error {
    fn from(error: PeerError) -> Self {
        CertificateError::Other(OtherError(Arc::new(error))).into()
    }
}

/// What a failed TLS handshake means to the connection that waited for it.
///
/// `error` is what a TLS stream returned: the `rustls::Error` is looked for among its sources.
pub fn handshake_reason(error: &io::Error) -> Reason {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
            if other.0.is::<PeerError>() =>
        {
            Reason::PeerIdentityMismatch
        }
        _ if error.kind() == io::ErrorKind::TimedOut => Reason::HandshakeTimeout,
        _ => Reason::TlsFailure,
    }
}

/// Whom the agent believes: one trust domain, its roots, and the algorithms to check signatures with.
#[derive(Debug)]
pub(super) struct Trust {
    trust_domain: TrustDomain,
    roots: Vec<TrustAnchor<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Trusts `root` with the names of `trust_domain`.
    pub(super) fn new(
        trust_domain: TrustDomain,
        root: &CertificateDer<'_>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, webpki::Error> {
        let anchor = webpki::anchor_from_trusted_cert(root)?.to_owned();
        Ok(Self {
            trust_domain,
            roots: vec![anchor],
            provider,
        })
    }

    pub(super) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// The identity that a chain proves at `now` for `usage`.
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<SpiffeId, rustls::Error> {
        EndEntityCert::try_from(leaf)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        self.provider.signature_verification_algorithms.all,
                        &self.roots,
                        intermediates,
                        now,
                        usage,
                        None,
                        None,
                    )
                    .map(|_| ())
            })
            .map_err(chain_error)?;
        let identity = peer_identity(leaf).map_err(PeerError::from)?;
        if identity.trust_domain() != &self.trust_domain {
            return Err(PeerError::TrustDomain(identity).into());
        }
        Ok(identity)
    }

    fn verify_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Lets in clients of our trust domain, whoever they are: what they may do is for policies to decide.
#[derive(Debug)]
pub(super) struct AnyWorkload(pub(super) Arc<Trust>);

impl ClientCertVerifier for AnyWorkload {
    // Empty: a client has one certificate, and names of roots would only lengthen the handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0
            .verify(end_entity, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.schemes()
    }
}

/// Lets one identity answer, and nobody else.
#[derive(Debug)]
pub(super) struct ExpectedWorkload {
    pub(super) trust: Arc<Trust>,
    pub(super) expected: SpiffeId,
}

impl ServerCertVerifier for ExpectedWorkload {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self
            .trust
            .verify(end_entity, intermediates, now, KeyUsage::server_auth())?;
        if found != self.expected {
            let expected = self.expected.clone();
            return Err(PeerError::Mismatch { expected, found }.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trust.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trust.schemes()
    }
}

fn tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken here".into())
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
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
    .into()
}

#[cfg(test)]
mod tests;
