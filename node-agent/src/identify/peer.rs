//! Which identity a certificate proves, read strictly: the certificate comes from the network.

use rustls_pki_types::CertificateDer;
use tramline_core::identity::{IdentityError, SpiffeId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate proves no identity of the mesh. Never repeats what the certificate says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdentityError {
    /// Not one DER certificate, or one with malformed or repeated extensions.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// A certificate that may sign others; X.509-SVID section 5.2 has such leaves refused.
    #[error("the certificate is allowed to sign others, which a workload's must not be")]
    Authority,
    /// No subject alternative name of type URI.
    #[error("the certificate has no URI in its subject alternative names")]
    None,
    /// X.509-SVID section 2: "an X.509 SVID MUST contain exactly one URI SAN".
    #[error("the certificate has more than one URI in its subject alternative names")]
    Several,
    /// The one URI is not an identity of the mesh.
    #[error("the certificate's URI: {0}")]
    Identity(#[from] IdentityError),
}

/// The identity in a workload's certificate: its single URI subject alternative name.
///
/// Says nothing about who signed the certificate; the TLS configurations check that first.
///
/// # Errors
/// When the certificate does not follow X.509-SVID or its URI is not [`SpiffeId::parse`]'s form.
pub fn peer_identity(leaf: &CertificateDer<'_>) -> Result<SpiffeId, PeerIdentityError> {
    let (rest, certificate) = X509Certificate::from_der(leaf).map_err(|_| PeerIdentityError::Malformed)?;
    if !rest.is_empty() {
        return Err(PeerIdentityError::Malformed);
    }
    let constraints = certificate
        .basic_constraints()
        .map_err(|_| PeerIdentityError::Malformed)?;
    let usage = certificate
        .key_usage()
        .map_err(|_| PeerIdentityError::Malformed)?;
    if constraints.is_some_and(|c| c.value.ca)
        || usage.is_some_and(|u| u.value.key_cert_sign() || u.value.crl_sign())
    {
        return Err(PeerIdentityError::Authority);
    }
    SpiffeId::parse(single_uri(&certificate)?).map_err(Into::into)
}

/// The only URI among a certificate's subject alternative names. Names of other types are nobody's identity.
pub(super) fn single_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, PeerIdentityError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerIdentityError::Malformed)?
        .ok_or(PeerIdentityError::None)?;
    let names = &names.value.general_names;
    // A name the parser gave up on could be a second URI that another implementation reads.
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(PeerIdentityError::Malformed);
    }
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None, _) => Err(PeerIdentityError::None),
        (Some(_), Some(_)) => Err(PeerIdentityError::Several),
    }
}

#[cfg(test)]
mod tests;
