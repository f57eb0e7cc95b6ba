use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, SanType};
use rustls::CertificateError;
use tempfile::TempDir;
use tramline_core::identity::{SpiffeId, TrustDomain, TrustDomains};
use tramline_core::reason::Reason;

use super::{PeerError, handshake_reason, is_refusal};
use crate::identify::ca::{CertificateAuthority, TrustFiles};
use crate::identify::certificate::WorkloadCertificate;
use crate::identify::peer::PeerIdentityError;
use crate::identify::test_support::{HOUR, authority, handshake, workload};

fn certificate_error(error: &io::Error) -> &CertificateError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(error)) => error,
        other => panic!("not about a certificate: {other:?}"),
    }
}

fn peer_error(error: &io::Error) -> &PeerError {
    match certificate_error(error) {
        CertificateError::Other(other) => other.0.downcast_ref().unwrap(),
        other => panic!("not about the peer: {other:?}"),
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// What a client expecting `web` says to this server, and what a server says to this client.
async fn refusals(bad: &WorkloadCertificate, good: &WorkloadCertificate) -> [io::Error; 2] {
    let (client, server) = handshake(good.client_config(&workload("web")), bad.server_config()).await;
    assert!(server.is_err(), "the server was not told");
    let (_, refused) = handshake(bad.client_config(good.identity()), good.server_config()).await;
    [client.unwrap_err(), refused.unwrap_err()]
}

async fn refusals_of_forged(change: impl FnOnce(&mut CertificateParams)) -> [io::Error; 2] {
    let authority = authority();
    let good = authority
        .issue(&workload("client"), HOUR, SystemTime::now())
        .unwrap();
    refusals(&authority.forge(&workload("web"), change), &good).await
}

#[tokio::test]
async fn a_forged_certificate_that_is_not_changed_is_let_in() {
    let authority = authority();
    let (web, client) = (
        authority.forge(&workload("web"), |_| {}),
        authority.forge(&workload("client"), |_| {}),
    );
    let (near, far) = handshake(client.client_config(&workload("web")), web.server_config()).await;
    near.unwrap();
    far.unwrap();
}

#[tokio::test]
async fn another_workload_at_the_address_is_a_mismatch() {
    let authority = authority();
    let now = SystemTime::now();
    let client = authority.issue(&workload("client"), HOUR, now).unwrap();
    let db = authority.issue(&workload("db"), HOUR, now).unwrap();
    let (near, far) = handshake(client.client_config(&workload("web")), db.server_config()).await;
    let error = near.unwrap_err();
    assert_eq!(
        peer_error(&error),
        &PeerError::Mismatch {
            expected: workload("web"),
            found: workload("db")
        }
    );
    assert_eq!(handshake_reason(&error), Reason::PeerIdentityMismatch);
    // The other side only learns that it was refused, here and where h2 has made a text of the error.
    let far = far.unwrap_err();
    assert_eq!(handshake_reason(&far), Reason::CertificateRefused);
    assert!(is_refusal(&io::Error::new(far.kind(), far.to_string())), "{far}");
    assert!(!is_refusal(&error), "{error}");
}

#[tokio::test]
async fn our_root_with_another_trust_domain_is_refused() {
    let foreign = SpiffeId::parse("spiffe://other.example/ns/shop/sa/web").unwrap();
    let name = foreign.to_string();
    let errors = refusals_of_forged(|params| params.subject_alt_names = vec![uri(&name)]).await;
    for error in errors {
        assert_eq!(peer_error(&error), &PeerError::TrustDomain(foreign.clone()));
        assert_eq!(handshake_reason(&error), Reason::PeerIdentityMismatch);
    }
}

#[tokio::test]
async fn a_workload_of_an_alias_is_one_of_ours() {
    let dir = TempDir::new().unwrap();
    let domain = |name: &str| TrustDomain::new(name).unwrap();
    let open = |own: &str, aliases: &[&str]| {
        let aliases: Vec<_> = aliases.iter().map(|name| domain(name)).collect();
        let domains = TrustDomains::new(domain(own), &aliases).unwrap();
        CertificateAuthority::open(dir.path(), &domains, TrustFiles::default()).unwrap()
    };
    // One root, made by the first: it names the trust domain that the second knows as an alias.
    let old = open("cluster.local", &["new.example"]);
    let new = open("new.example", &["cluster.local"]);
    let alone = open("cluster.local", &[]);
    let now = SystemTime::now();
    let of =
        |domain: &str, name: &str| SpiffeId::parse(&format!("spiffe://{domain}/ns/shop/sa/{name}")).unwrap();
    let client = old.issue(&of("cluster.local", "client"), HOUR, now).unwrap();
    let web = new.issue(&of("new.example", "web"), HOUR, now).unwrap();
    // Each expects the other in its own trust domain.
    let (near, far) = handshake(
        client.client_config(&of("cluster.local", "web")),
        web.server_config(),
    )
    .await;
    near.unwrap();
    far.unwrap();
    let (near, far) = handshake(
        web.client_config(&of("new.example", "client")),
        client.server_config(),
    )
    .await;
    near.unwrap();
    far.unwrap();
    // Another workload of the alias is another workload.
    let (near, _) = handshake(
        client.client_config(&of("cluster.local", "db")),
        web.server_config(),
    )
    .await;
    assert_eq!(
        peer_error(&near.unwrap_err()),
        &PeerError::Mismatch {
            expected: of("cluster.local", "db"),
            found: of("new.example", "web")
        }
    );
    // Certificates are for the own trust domain alone.
    assert!(old.issue(&of("new.example", "client"), HOUR, now).is_err());
    // Who does not know of the alias lets nobody of it in.
    let stranger = alone.issue(&of("cluster.local", "client"), HOUR, now).unwrap();
    for error in refusals(&web, &stranger).await {
        assert_eq!(
            peer_error(&error),
            &PeerError::TrustDomain(of("new.example", "web"))
        );
    }
}

#[tokio::test]
async fn an_alias_needs_a_trusted_root_as_any_other() {
    let (here, there) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let domain = |name: &str| TrustDomain::new(name).unwrap();
    let open = |dir: &TempDir, own: &str, alias: &str, bundle: Option<PathBuf>| {
        let domains = TrustDomains::new(domain(own), &[domain(alias)]).unwrap();
        CertificateAuthority::open(dir.path(), &domains, TrustFiles { bundle, crl: None })
    };
    let theirs = open(&there, "new.example", "cluster.local", None).unwrap();
    let web = SpiffeId::parse("spiffe://new.example/ns/shop/sa/web").unwrap();
    let web = theirs.issue(&web, HOUR, SystemTime::now()).unwrap();
    let client = |authority: &CertificateAuthority| {
        authority
            .issue(&workload("client"), HOUR, SystemTime::now())
            .unwrap()
    };
    let ours = open(&here, "cluster.local", "new.example", None).unwrap();
    let (near, _) = handshake(client(&ours).client_config(&workload("web")), web.server_config()).await;
    let found = near.unwrap_err();
    assert!(
        matches!(certificate_error(&found), CertificateError::UnknownIssuer),
        "{found}"
    );
    // The root of the alias may stand in the bundle; that of somebody else may not.
    let root = there.path().join("ca/root.pem");
    let ours = open(&here, "cluster.local", "new.example", Some(root.clone())).unwrap();
    let (near, _) = handshake(client(&ours).client_config(&workload("web")), web.server_config()).await;
    near.unwrap();
    let error = open(&here, "cluster.local", "else.example", Some(root))
        .err()
        .unwrap();
    assert!(
        error
            .to_string()
            .contains("is an authority of \"spiffe://new.example\""),
        "{error}"
    );
}

#[tokio::test]
async fn two_names_or_none_are_refused() {
    let name = workload("web").to_string();
    let two = vec![uri(&name), uri("spiffe://cluster.local/ns/shop/sa/db")];
    for (names, expected) in [
        (two, PeerIdentityError::Several),
        (vec![], PeerIdentityError::None),
    ] {
        for error in refusals_of_forged(|params| params.subject_alt_names = names).await {
            assert_eq!(peer_error(&error), &PeerError::Identity(expected.clone()));
            assert_eq!(handshake_reason(&error), Reason::PeerIdentityMismatch);
        }
    }
}

#[tokio::test]
async fn expired_and_not_yet_valid_are_refused() {
    let past = (SystemTime::now() - HOUR).into();
    for error in refusals_of_forged(|params| {
        params.not_before = past - HOUR;
        params.not_after = past;
    })
    .await
    {
        let found = certificate_error(&error);
        assert!(
            matches!(found, CertificateError::ExpiredContext { .. }),
            "{found:?}"
        );
        assert_eq!(handshake_reason(&error), Reason::TlsFailure);
    }
    let future = (SystemTime::now() + HOUR).into();
    for error in refusals_of_forged(|params| {
        params.not_before = future;
        params.not_after = future + HOUR;
    })
    .await
    {
        let found = certificate_error(&error);
        assert!(
            matches!(found, CertificateError::NotValidYetContext { .. }),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn each_direction_wants_its_own_usage() {
    let authority = authority();
    let good = authority.forge(&workload("client"), |_| {});
    let server_only = authority.forge(&workload("web"), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let client_only = authority.forge(&workload("web"), |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let (near, far) = handshake(good.client_config(&workload("web")), client_only.server_config()).await;
    assert_eq!(
        certificate_error(&near.unwrap_err()),
        &CertificateError::InvalidPurpose
    );
    assert!(far.is_err());
    let (_, far) = handshake(server_only.client_config(good.identity()), good.server_config()).await;
    assert_eq!(
        certificate_error(&far.unwrap_err()),
        &CertificateError::InvalidPurpose
    );
}

#[tokio::test]
async fn another_root_and_a_leaf_that_is_an_authority_are_refused() {
    let (ours, theirs) = (authority(), authority());
    let good = ours.forge(&workload("client"), |_| {});
    let mut stranger = theirs.forge(&workload("web"), |_| {});
    stranger.believe(ours.trust().clone());
    for error in refusals(&stranger, &good).await {
        let found = certificate_error(&error);
        assert!(matches!(found, CertificateError::UnknownIssuer), "{found:?}");
    }
    for error in refusals_of_forged(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).await {
        assert!(matches!(certificate_error(&error), CertificateError::Other(_)));
        assert_eq!(handshake_reason(&error), Reason::TlsFailure);
    }
}

#[test]
fn a_timeout_is_told_apart() {
    assert_eq!(
        handshake_reason(&io::ErrorKind::TimedOut.into()),
        Reason::HandshakeTimeout
    );
    assert_eq!(
        handshake_reason(&io::ErrorKind::ConnectionReset.into()),
        Reason::TlsFailure
    );
}
