//! Making one workload's certificate, after X.509-SVID.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tramline_core::identity::SpiffeId;
use zeroize::Zeroizing;

use super::root::Root;
use super::{CLOCK_SKEW, CaError};

/// A certificate and its key.
pub(super) struct Leaf {
    pub(super) der: CertificateDer<'static>,
    pub(super) key: Zeroizing<KeyPair>,
    pub(super) validity: (SystemTime, SystemTime),
}

/// A new key and a certificate for `identity`, valid from a minute before `now` until `ttl` after it, but no longer
/// than whoever signs it.
pub(super) fn leaf(
    root: &Root,
    identity: &SpiffeId,
    ttl: Duration,
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<Leaf, CaError> {
    let not_before = whole_seconds(now - CLOCK_SKEW)?;
    let end = now.checked_add(ttl).ok_or(CaError::Lifetime)?;
    let not_after = whole_seconds(end.min(root.not_after()))?;
    if SystemTime::from(not_after) <= now {
        return Err(CaError::Lifetime);
    }
    let (der, key) = sign(root, params(identity, not_before, not_after, provider)?)?;
    Ok(Leaf {
        der,
        key,
        validity: (not_before.into(), not_after.into()),
    })
}

/// What a workload's certificate says.
pub(super) fn params(
    identity: &SpiffeId,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    provider: &CryptoProvider,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.not_before = not_before;
    params.not_after = not_after;
    params.serial_number = Some(serial_number(provider)?);
    // Empty: the name is in the URI only.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A new key and its certificate.
pub(super) fn sign(
    root: &Root,
    params: CertificateParams,
) -> Result<(CertificateDer<'static>, Zeroizing<KeyPair>), CaError> {
    let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
    let issuer = Issuer::from_ca_cert_der(root.certificate(), root.key())?;
    let leaf = params.signed_by(&*key, &issuer)?.der().clone();
    Ok((leaf, key))
}

/// Unpredictable (CA/Browser Forum Baseline Requirements section 7.1 ask for 64 bits), positive and of at most
/// 20 octets (RFC 5280 section 4.1.2.2).
fn serial_number(provider: &CryptoProvider) -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    provider
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| CaError::Random)?;
    // The first octet neither makes it negative nor is dropped as a leading zero.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Certificates count in seconds (RFC 5280 section 4.1.2.5); rounding down never lengthens a validity's end.
pub(super) fn whole_seconds(at: SystemTime) -> Result<OffsetDateTime, CaError> {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| CaError::Lifetime)?
        .as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| CaError::Lifetime)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CaError::Lifetime)
}
