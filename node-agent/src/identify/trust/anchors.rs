//! One state of trust, immutable: roots and revocation lists that fit together.

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use tramline_core::identity::{TrustDomain, TrustDomains};
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::Crl;

/// More roots than any rotation has; each is tried for a peer that none of them vouches for.
const MAX_ROOTS: usize = 64;

/// A root of trust, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootInfo {
    /// Its distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// When it begins to vouch for anybody.
    pub not_before: SystemTime,
    /// When it ceases to vouch for anybody.
    pub not_after: SystemTime,
}

/// A revocation list, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlInfo {
    /// The distinguished name of whoever issued it.
    pub issuer: String,
    /// When it was issued.
    pub this_update: SystemTime,
    /// When the next one was promised; a list in force stays in force after it.
    pub next_update: SystemTime,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// Whether its signature has been checked with a root. Of an issuer that is no root it is checked when a
    /// certificate of that issuer is.
    pub verified: bool,
}

/// Roots and revocation lists.
#[derive(Debug, Default)]
pub(in crate::identify) struct Anchors {
    /// In the order of `roots`.
    anchors: Vec<TrustAnchor<'static>>,
    roots: Vec<RootInfo>,
    crls: Vec<Crl>,
}

impl Anchors {
    /// Believes `roots`, which may hold one twice.
    pub(in crate::identify) fn new(
        roots: &[CertificateDer<'static>],
        trust_domains: &TrustDomains,
    ) -> Result<Self, String> {
        let mut found: Vec<(RootInfo, TrustAnchor<'static>)> = Vec::new();
        for (index, der) in roots.iter().enumerate() {
            let at = |what: String| format!("certificate {}: {what}", index + 1);
            let (info, anchor) = root(der, trust_domains).map_err(at)?;
            if found
                .iter()
                .all(|(known, _)| known.fingerprint != info.fingerprint)
            {
                found.push((info, anchor));
            }
        }
        if found.len() > MAX_ROOTS {
            return Err(format!("{} roots, of at most {MAX_ROOTS}", found.len()));
        }
        // Of two certificates for one key, such as a root that was prolonged, the first is taken.
        found.sort_by_key(|(info, _)| std::cmp::Reverse(info.not_after));
        let (roots, anchors) = found.into_iter().unzip();
        Ok(Self {
            anchors,
            roots,
            crls: Vec::new(),
        })
    }

    /// The same roots with `crls`.
    pub(in crate::identify) fn with_crls(self, crls: Vec<Crl>) -> Self {
        Self { crls, ..self }
    }

    pub(in crate::identify) fn roots(&self) -> &[RootInfo] {
        &self.roots
    }

    pub(in crate::identify) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    pub(in crate::identify) fn crls(&self) -> impl Iterator<Item = &Crl> {
        self.crls.iter()
    }

    /// Whether the two believe the same.
    pub(in crate::identify) fn same(&self, other: &Self) -> bool {
        self.roots == other.roots
            && self.crls.len() == other.crls.len()
            && self.crls.iter().zip(&other.crls).all(|(a, b)| a.der() == b.der())
    }

    /// The root that vouches for a chain at `now`.
    pub(in crate::identify) fn verify(
        &self,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        usage: KeyUsage,
    ) -> Result<&RootInfo, webpki::Error> {
        let leaf = EndEntityCert::try_from(leaf)?;
        let lists: Vec<&CertRevocationList<'_>> = self.crls.iter().map(Crl::list).collect();
        // None without lists. Who issued no list has revoked nobody that we know of; and a list that has lapsed still
        // says whom it revoked, while refusing everybody would end the mesh for a late file.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        let path = leaf.verify_for_usage(
            algorithms,
            &self.anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        )?;
        let anchor = path.anchor();
        let root = self
            .anchors
            .iter()
            .position(|known| std::ptr::eq(known, anchor))
            .and_then(|at| self.roots.get(at))
            .ok_or(webpki::Error::UnknownIssuer)?;
        // webpki does not ask for a root's own time.
        let seconds = |at: SystemTime| {
            UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
        };
        let (not_before, not_after) = (seconds(root.not_before), seconds(root.not_after));
        if now >= not_after {
            return Err(webpki::Error::CertExpired { time: now, not_after });
        }
        if now < not_before {
            return Err(webpki::Error::CertNotValidYet {
                time: now,
                not_before,
            });
        }
        Ok(root)
    }
}

/// Every certificate in a PEM file; what else is in it, such as comments, does not count.
pub(in crate::identify) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .enumerate()
        .map(|(index, der)| der.map_err(|error| format!("certificate {}: not PEM: {error}", index + 1)))
        .collect()
}

fn root(
    der: &CertificateDer<'static>,
    trust_domains: &TrustDomains,
) -> Result<(RootInfo, TrustAnchor<'static>), String> {
    let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| "not an X.509 certificate".to_owned())?;
    let subject = parsed.subject().to_string();
    if !rest.is_empty() {
        return Err(format!("{subject:?} is followed by other bytes"));
    }
    if !parsed.is_ca() {
        return Err(format!(
            "{subject:?} is not the certificate of an authority (no basicConstraints with CA:TRUE)"
        ));
    }
    let uris = uris(&parsed)?;
    if let Some(other) = uris.iter().find(|uri| !is_ours(uri, trust_domains)) {
        return Err(format!(
            "{subject:?} is an authority of {other:?}, but the agent's trust domain is {}",
            trust_domains.own()
        ));
    }
    let info = RootInfo {
        subject,
        fingerprint: fingerprint(der),
        not_before: certificate_time(parsed.validity().not_before),
        not_after: certificate_time(parsed.validity().not_after),
    };
    let anchor =
        webpki::anchor_from_trusted_cert(der).map_err(|error| format!("{:?}: {error}", info.subject))?;
    Ok((info, anchor.to_owned()))
}

/// An authority need not name a trust domain (a company's own root does not), but it must not name another one.
fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| "its subject alternative names cannot be parsed".to_owned())?;
    Ok(names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect())
}

/// X.509-SVID section 2: a signing certificate names its trust domain without path.
pub(in crate::identify) fn trust_domain_uri(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}")
}

/// Whether an authority of that name is one of our trust domain or of an alias.
pub(in crate::identify) fn is_ours(uri: &str, trust_domains: &TrustDomains) -> bool {
    trust_domains
        .all()
        .iter()
        .any(|trust_domain| trust_domain_uri(trust_domain) == uri)
}

/// SHA-256, in hexadecimal.
pub(in crate::identify) fn fingerprint(der: &CertificateDer<'_>) -> String {
    let hash = digest::digest(&digest::SHA256, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Times before 1970 count as its beginning.
pub(in crate::identify) fn certificate_time(at: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
