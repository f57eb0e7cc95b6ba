//! The root certificate and its key: made once, checked at every start.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tramline_core::identity::TrustDomain;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

use super::files::{Files, Secrecy};
use super::{CLOCK_SKEW, CaError, whole_seconds};
use crate::identify::peer::single_uri;

const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A root of trust that can sign.
pub(super) struct Root {
    certificate: CertificateDer<'static>,
    not_after: SystemTime,
    key: Zeroizing<KeyPair>,
}

impl Root {
    /// The root on disk, `None` if there is none.
    pub(super) fn load(
        files: &Files,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Option<Self>, CaError> {
        // The certificate is written last: where it is, the key is.
        let Some(pem) = files.read(&files.root(), Secrecy::Public)? else {
            return Ok(None);
        };
        let Some(key) = load_key(files)? else {
            return Err(CaError::MissingKey {
                root: files.root(),
                key: files.key(),
            });
        };
        let certificate =
            single_certificate(&pem).ok_or_else(|| content(files, "not one PEM certificate"))?;
        let not_after = check(files, &certificate, &key, trust_domain)?;
        if not_after <= now {
            return Err(CaError::RootExpired(files.root()));
        }
        Ok(Some(Self {
            certificate,
            not_after,
            key,
        }))
    }

    /// A new root, on disk when this returns. Needs the lock.
    pub(super) fn create(
        files: &Files,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        // A key without certificate is from a process that was killed in between.
        let key = match load_key(files)? {
            Some(key) => key,
            None => {
                let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
                let pem = Zeroizing::new(key.serialize_pem());
                files.write(&files.key(), pem.as_bytes(), Secrecy::Private)?;
                key
            }
        };
        let mut params = CertificateParams::default();
        params.not_before = whole_seconds(now - CLOCK_SKEW)?;
        params.not_after = whole_seconds(now + LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(uri(trust_domain).try_into()?)];
        // The key's identifier in the name: two roots of one trust domain are told apart.
        let identifier: String = params
            .key_identifier(&*key)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Tramline root {identifier}"));
        let not_after = params.not_after.into();
        let certificate = params.self_signed(&*key)?;
        files.write(&files.root(), certificate.pem().as_bytes(), Secrecy::Public)?;
        tracing::info!(path = %files.root().display(), %trust_domain, "made a new root of trust");
        Ok(Self {
            certificate: certificate.der().clone(),
            not_after,
            key,
        })
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(super) fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

fn load_key(files: &Files) -> Result<Option<Zeroizing<KeyPair>>, CaError> {
    let Some(pem) = files.read(&files.key(), Secrecy::Private)? else {
        return Ok(None);
    };
    let wrong = || CaError::Content {
        path: files.key(),
        what: "not a PKCS #8 key in PEM on the curve P-256",
    };
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| wrong())?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(|_| wrong());
    der.zeroize();
    Ok(Some(Zeroizing::new(key?)))
}

/// Two would be two roots, and the key belongs to one of them.
fn single_certificate(pem: &[u8]) -> Option<CertificateDer<'static>> {
    let mut found = CertificateDer::pem_slice_iter(pem);
    match (found.next(), found.next()) {
        (Some(Ok(certificate)), None) => Some(certificate),
        _ => None,
    }
}

/// Whether the root may sign for the trust domain with that key. Returns the end of its validity.
fn check(
    files: &Files,
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    trust_domain: &TrustDomain,
) -> Result<SystemTime, CaError> {
    let (_, parsed) =
        X509Certificate::from_der(certificate).map_err(|_| content(files, "not an X.509 certificate"))?;
    if !parsed.is_ca() {
        return Err(content(files, "not the certificate of an authority"));
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(content(files, "the key in root-key.pem is another certificate's"));
    }
    let found = single_uri(&parsed).map_err(|_| content(files, "names no trust domain"))?;
    if found != uri(trust_domain) {
        return Err(CaError::TrustDomain {
            path: files.root(),
            found: found.to_owned(),
            expected: trust_domain.clone(),
        });
    }
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .ok_or(CaError::Lifetime)
}

/// X.509-SVID section 2: a signing certificate names its trust domain without path.
fn uri(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}")
}

fn content(files: &Files, what: &'static str) -> CaError {
    CaError::Content {
        path: files.root(),
        what,
    }
}
