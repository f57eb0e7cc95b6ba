//! Certificate revocation lists (RFC 5280 section 5).

use std::time::SystemTime;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateRevocationListDer, SignatureVerificationAlgorithm, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::revocation_list::CertificateRevocationList;

use super::anchors::{Anchors, CrlInfo, certificate_time};

/// One issuer has one list; a mesh has few issuers.
const MAX_LISTS: usize = 64;

/// One list, whole.
#[derive(Debug)]
pub(in crate::identify) struct Crl {
    der: CertificateRevocationListDer<'static>,
    list: CertRevocationList<'static>,
    info: CrlInfo,
}

impl Crl {
    /// Every list in a PEM file. Their signatures are checked by the roots in `anchors`, where one of those is the
    /// issuer.
    pub(in crate::identify) fn read_all(
        pem: &[u8],
        anchors: &Anchors,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Vec<Self>, String> {
        let mut lists: Vec<Self> = Vec::new();
        for (index, der) in CertificateRevocationListDer::pem_slice_iter(pem).enumerate() {
            let at = |what: String| format!("list {}: {what}", index + 1);
            let der = der.map_err(|error| at(format!("not PEM: {error}")))?;
            let crl = Self::read(der, anchors, algorithms).map_err(at)?;
            // webpki looks at the first that may apply and at no other.
            if lists.iter().any(|known| known.list.issuer() == crl.list.issuer()) {
                let issuer = crl.info.issuer;
                return Err(at(format!(
                    "a second list of {issuer:?}; one list per issuer is read"
                )));
            }
            lists.push(crl);
            if lists.len() > MAX_LISTS {
                return Err(format!("more than {MAX_LISTS} lists"));
            }
        }
        if lists.is_empty() {
            return Err("no PEM block X509 CRL in it; a list that revokes nobody is one, too".to_owned());
        }
        Ok(lists)
    }

    fn read(
        der: CertificateRevocationListDer<'static>,
        anchors: &Anchors,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<Self, String> {
        let list =
            OwnedCertRevocationList::from_der(&der).map_err(|error| format!("cannot be used: {error}"))?;
        let list = CertRevocationList::from(list);
        let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|_| "not a CRL".to_owned())?;
        let issuer = parsed.issuer().to_string();
        if list.issuing_distribution_point().is_some() {
            return Err(format!(
                "the list of {issuer:?} is for some of its certificates only (issuingDistributionPoint); give the one \
                 for all of them"
            ));
        }
        let issuers: Vec<_> = anchors
            .anchors()
            .iter()
            .filter(|anchor| anchor.subject.as_ref() == list.issuer())
            .collect();
        if !issuers.is_empty() && !issuers.iter().any(|issuer| signed_by(&der, issuer, algorithms)) {
            return Err(format!("the list of {issuer:?} is not signed by that root"));
        }
        let info = CrlInfo {
            this_update: certificate_time(parsed.last_update()),
            // webpki refuses a list without one.
            next_update: parsed
                .next_update()
                .map_or(SystemTime::UNIX_EPOCH, certificate_time),
            revoked: parsed.iter_revoked_certificates().count(),
            verified: !issuers.is_empty(),
            issuer,
        };
        Ok(Self { der, list, info })
    }

    /// Whether this list takes something back that `newer`, of the same issuer, would forget.
    pub(in crate::identify) fn outdates(&self, newer: &Self) -> bool {
        self.list.issuer() == newer.list.issuer() && newer.info.this_update < self.info.this_update
    }

    pub(in crate::identify) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(in crate::identify) fn list(&self) -> &CertRevocationList<'static> {
        &self.list
    }

    pub(in crate::identify) fn info(&self) -> &CrlInfo {
        &self.info
    }
}

/// Whether the key of `issuer` signed the list. webpki checks that too, but only once a certificate is checked.
fn signed_by(
    der: &[u8],
    issuer: &TrustAnchor<'_>,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    let Some((signed, algorithm, signature)) = parts(der) else {
        return false;
    };
    let Some((key_algorithm, key)) = key(&issuer.subject_public_key_info) else {
        return false;
    };
    algorithms
        .iter()
        .filter(|known| {
            known.signature_alg_id().as_ref() == algorithm
                && known.public_key_alg_id().as_ref() == key_algorithm
        })
        .any(|known| known.verify_signature(key, signed, signature).is_ok())
}

/// `CertificateList ::= SEQUENCE { tbsCertList, signatureAlgorithm, signatureValue }`: the first with its header, the
/// others' contents.
fn parts(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (_, whole) = Any::from_der(der).ok()?;
    let (after_signed, _) = Any::from_der(whole.data).ok()?;
    let signed = whole.data.get(..whole.data.len() - after_signed.len())?;
    let (after_algorithm, algorithm) = Any::from_der(after_signed).ok()?;
    Some((signed, algorithm.data, bits(after_algorithm)?))
}

/// `AlgorithmIdentifier, BIT STRING`, which is what a `SubjectPublicKeyInfo` holds: the contents of both.
fn key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, algorithm) = Any::from_der(info).ok()?;
    Some((algorithm.data, bits(rest)?))
}

fn bits(der: &[u8]) -> Option<&[u8]> {
    let (_, bits) = Any::from_der(der).ok()?;
    // Its first octet counts the unused bits, of which keys and signatures have none.
    match bits.data.split_first() {
        Some((0, octets)) => Some(octets),
        _ => None,
    }
}
