use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use tramline_core::identity::IdentityError;

use super::{PeerIdentityError, peer_identity};

/// subjectAltName, RFC 5280 section 4.2.1.6.
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn with_names(names: Vec<SanType>) -> CertificateDer<'static> {
    certificate(|params| params.subject_alt_names = names)
}

/// A certificate whose subjectAltName holds exactly these (tag, bytes), whatever they are.
fn with_raw_names(names: &[(u8, &[u8])]) -> CertificateDer<'static> {
    let mut list = Vec::new();
    for (tag, bytes) in names {
        list.push(*tag);
        list.push(u8::try_from(bytes.len()).unwrap());
        list.extend_from_slice(bytes);
    }
    let mut content = vec![0x30, u8::try_from(list.len()).unwrap()];
    content.extend(list);
    certificate(|params| {
        params
            .custom_extensions
            .push(CustomExtension::from_oid_content(SUBJECT_ALT_NAME, content));
    })
}

const URI_TAG: u8 = 0x86;
const DNS_TAG: u8 = 0x82;
const GOOD: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[test]
fn one_uri_is_the_identity() {
    let leaf = with_names(vec![uri(GOOD)]);
    assert_eq!(peer_identity(&leaf).unwrap().as_str(), GOOD);
    let leaf = with_raw_names(&[(DNS_TAG, b"web.shop"), (URI_TAG, GOOD.as_bytes())]);
    assert_eq!(peer_identity(&leaf).unwrap().as_str(), GOOD);
}

#[test]
fn no_uri_is_no_identity() {
    assert_eq!(peer_identity(&with_names(vec![])), Err(PeerIdentityError::None));
    let dns = with_names(vec![SanType::DnsName(GOOD.try_into().unwrap())]);
    assert_eq!(peer_identity(&dns), Err(PeerIdentityError::None));
}

#[test]
fn two_uris_are_refused_in_either_order() {
    for second in [
        "spiffe://cluster.local/ns/shop/sa/db",
        "https://example.com",
        GOOD,
    ] {
        for names in [vec![uri(GOOD), uri(second)], vec![uri(second), uri(GOOD)]] {
            assert_eq!(
                peer_identity(&with_names(names)),
                Err(PeerIdentityError::Several),
                "{second}"
            );
        }
    }
}

#[test]
fn a_second_extension_of_names_is_refused() {
    let extension = |text: &str| {
        let len = u8::try_from(text.len()).unwrap();
        let content = [&[0x30, len + 2, URI_TAG, len], text.as_bytes()].concat();
        CustomExtension::from_oid_content(SUBJECT_ALT_NAME, content)
    };
    let leaf = certificate(|params| {
        params.custom_extensions = vec![extension(GOOD), extension("spiffe://cluster.local/ns/shop/sa/db")];
    });
    assert_eq!(peer_identity(&leaf), Err(PeerIdentityError::Malformed));
}

#[test]
fn nul_and_garbage_are_refused() {
    let nul = format!("{GOOD}\0.example.com");
    assert_eq!(
        peer_identity(&with_raw_names(&[(URI_TAG, nul.as_bytes())])),
        Err(PeerIdentityError::Identity(IdentityError::ServiceAccount))
    );
    // Not even a URI that follows the broken one counts.
    for broken in [&b"\xff\xfe"[..], b"spiffe://\xc3\xa9"] {
        let leaf = with_raw_names(&[(URI_TAG, broken), (URI_TAG, GOOD.as_bytes())]);
        assert!(peer_identity(&leaf).is_err());
        assert!(peer_identity(&with_raw_names(&[(URI_TAG, broken)])).is_err());
    }
    for text in [
        "",
        "spiffe://",
        "spiffe://cluster.local",
        "SPIFFE://cluster.local/ns/a/sa/b",
    ] {
        let found = peer_identity(&with_raw_names(&[(URI_TAG, text.as_bytes())]));
        assert!(
            matches!(found, Err(PeerIdentityError::Identity(_))),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn an_authority_is_no_workload() {
    for change in [
        (|params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
            as fn(&mut CertificateParams),
        |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign],
        |params| params.key_usages = vec![KeyUsagePurpose::CrlSign],
    ] {
        let leaf = certificate(|params| {
            params.subject_alt_names = vec![uri(GOOD)];
            change(params);
        });
        assert_eq!(peer_identity(&leaf), Err(PeerIdentityError::Authority));
    }
}

#[test]
fn bytes_after_the_certificate_are_refused() {
    let mut bytes = with_names(vec![uri(GOOD)]).to_vec();
    bytes.push(0);
    assert_eq!(
        peer_identity(&CertificateDer::from(bytes)),
        Err(PeerIdentityError::Malformed)
    );
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(peer_identity(&CertificateDer::from(bytes)).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = with_names(vec![uri(GOOD)]).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        // The signature is not this function's business; only that it answers.
        let _ = peer_identity(&CertificateDer::from(bytes));
    }
}
