//! The certificate that signs and its key: a root made once, or whatever the operator put in its place. Checked
//! whenever it is read.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tramline_core::identity::{TrustDomain, TrustDomains};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

use super::files::{Files, Secrecy};
use super::issue::whole_seconds;
use super::{CLOCK_SKEW, CaError};
use crate::identify::peer::{PeerIdentityError, single_uri};
use crate::identify::trust::{RootInfo, certificate_time, fingerprint, is_ours, trust_domain_uri};

const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// More intermediates than webpki follows make no chain.
const MAX_CHAIN: usize = 6;

/// A root of trust that can sign, or an authority below one.
pub(super) struct Root {
    /// The signer first, each signed by the next; a root is alone.
    chain: Vec<CertificateDer<'static>>,
    info: RootInfo,
    is_root: bool,
    not_after: SystemTime,
    key: Zeroizing<KeyPair>,
}

impl Root {
    /// The root on disk, `None` if there is none.
    pub(super) fn load(
        files: &Files,
        trust_domains: &TrustDomains,
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
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| content(files, "not certificates in PEM"))?;
        let root = check(files, chain, key, trust_domains)?;
        if root.not_after <= now {
            return Err(CaError::RootExpired(files.root()));
        }
        Ok(Some(root))
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
        params.subject_alt_names = vec![SanType::URI(trust_domain_uri(trust_domain).try_into()?)];
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
        let certificate = params.self_signed(&*key)?;
        let root = check(
            files,
            vec![certificate.der().clone()],
            key,
            &trust_domain.clone().into(),
        )?;
        files.write(&files.root(), certificate.pem().as_bytes(), Secrecy::Public)?;
        tracing::info!(path = %files.root().display(), %trust_domain, "made a new root of trust");
        Ok(root)
    }

    /// The certificate that signs.
    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        // Never empty, see `check`.
        &self.chain[0]
    }

    /// What a peer needs beside a workload's certificate to find the root.
    pub(super) fn intermediates(&self) -> &[CertificateDer<'static>] {
        if self.is_root { &[] } else { &self.chain }
    }

    /// The certificate, if it is a root: whoever signs with it trusts it.
    pub(super) fn as_root(&self) -> Option<&CertificateDer<'static>> {
        self.is_root.then(|| self.certificate())
    }

    /// Whether both are the same files.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.chain == other.chain
    }

    /// Who signs.
    pub(super) fn info(&self) -> &RootInfo {
        &self.info
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

/// Whether these may sign for the trust domain with that key. The root of an alias may: else a mesh could not change its trust
/// domain without changing its root at the same moment.
fn check(
    files: &Files,
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<KeyPair>,
    trust_domains: &TrustDomains,
) -> Result<Root, CaError> {
    let wrong = |what| content(files, what);
    let mut parsed = Vec::new();
    for certificate in &chain {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| wrong("not an X.509 certificate"))?;
        if !certificate.is_ca() {
            return Err(wrong("not the certificate of an authority"));
        }
        parsed.push(certificate);
    }
    let signer = parsed.first().ok_or_else(|| wrong("no certificate in PEM"))?;
    if signer.public_key().raw != key.subject_public_key_info() {
        return Err(wrong("the key in root-key.pem is another certificate's"));
    }
    let is_root = signer.issuer() == signer.subject();
    if is_root && parsed.len() > 1 {
        return Err(wrong(
            "more than the one root that signs; further roots are trusted by --trust-bundle",
        ));
    }
    if parsed.len() > MAX_CHAIN {
        return Err(wrong("too many certificates for one chain"));
    }
    match single_uri(signer) {
        Ok(uri) if is_ours(uri, trust_domains) => {}
        // An authority below a company's root need not know of trust domains.
        Err(PeerIdentityError::None) if !is_root => {}
        Ok(uri) => {
            return Err(CaError::TrustDomain {
                path: files.root(),
                found: uri.to_owned(),
                expected: trust_domains.own().clone(),
            });
        }
        Err(_) => return Err(wrong("names no trust domain")),
    }
    let ends = parsed.iter().map(|certificate| certificate.validity().not_after);
    let not_after = ends.map(certificate_time).min().unwrap_or(SystemTime::UNIX_EPOCH);
    let info = RootInfo {
        subject: signer.subject().to_string(),
        fingerprint: fingerprint(&chain[0]),
        not_before: certificate_time(signer.validity().not_before),
        not_after: certificate_time(signer.validity().not_after),
    };
    drop(parsed);
    Ok(Root {
        chain,
        info,
        is_root,
        not_after,
        key,
    })
}

fn content(files: &Files, what: &'static str) -> CaError {
    CaError::Content {
        path: files.root(),
        what,
    }
}
