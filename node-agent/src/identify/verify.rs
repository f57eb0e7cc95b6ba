//! The two questions of mutual TLS: does the chain lead to a root of ours, and who is the peer.
//!
//! There are no host names here: SNI and DNS names are neither sent nor read.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;
use webpki::KeyUsage;

use super::peer::PeerIdentityError;
use super::trust::Trust;

/// Why a peer with a chain to a root of ours is still not let in. Found inside of [`rustls::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// The certificate proves no identity.
    #[error("the peer proves no identity: {0}")]
    Identity(#[from] PeerIdentityError),
    /// Our roots vouch for our trust domain and its aliases, and for no other.
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

/// What the peer says of a certificate that it does not accept (RFC 8446, section 6.2).
const REFUSALS: [AlertDescription; 7] = [
    AlertDescription::BadCertificate,
    AlertDescription::UnsupportedCertificate,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateUnknown,
    AlertDescription::UnknownCA,
    AlertDescription::AccessDenied,
];

/// Whether the peer has refused our certificate. Of an error that ended its connection h2 keeps no more than the text.
pub fn is_refusal(error: &io::Error) -> bool {
    let text = error.to_string();
    REFUSALS
        .iter()
        .any(|alert| text == rustls::Error::AlertReceived(*alert).to_string())
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
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::Revoked,
        )) => Reason::PeerUntrusted,
        Some(rustls::Error::AlertReceived(alert)) if REFUSALS.contains(alert) => Reason::CertificateRefused,
        _ if error.kind() == io::ErrorKind::TimedOut => Reason::HandshakeTimeout,
        _ => Reason::TlsFailure,
    }
}

fn verify_signature(
    trust: &Trust,
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &trust.provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, leaf, signed, algorithms)
}

fn schemes(trust: &Trust) -> Vec<SignatureScheme> {
    trust
        .provider()
        .signature_verification_algorithms
        .supported_schemes()
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
        verify_signature(&self.0, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes(&self.0)
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
        // Of an alias it is the same workload, as for Istio's clients.
        if !self.trust.trust_domains().are_one(&found, &self.expected) {
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
        verify_signature(&self.trust, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes(&self.trust)
    }
}

fn tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken here".into())
}

#[cfg(test)]
mod tests;
