use std::io::Read as _;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, HandshakeKind, ProtocolVersion, ServerConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::identify::WorkloadCertificate;
use crate::identify::ca::CertificateAuthority;
use crate::identify::peer::peer_identity;
use crate::identify::test_support::{HOUR, authority, handshake, workload};
use crate::identify::verify::ExpectedWorkload;

fn issue(authority: &CertificateAuthority, name: &str) -> WorkloadCertificate {
    authority.issue(&workload(name), HOUR, SystemTime::now()).unwrap()
}

fn tls_error(error: &std::io::Error) -> &rustls::Error {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn both_sides_prove_who_they_are_and_nothing_is_resumed() {
    let authority = authority();
    let (client, web) = (issue(&authority, "client"), issue(&authority, "web"));
    let config = client.client_config(&workload("web"));
    for _ in 0..2 {
        let (near, far) = handshake(config.clone(), web.server_config()).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        let mut byte = [0];
        near.read_exact(&mut byte).await.unwrap();

        let (client, server) = (near.get_ref().1, far.get_ref().1);
        let seen = |certificates: Option<&[_]>| peer_identity(&certificates.unwrap()[0]).unwrap();
        assert_eq!(seen(client.peer_certificates()), workload("web"));
        assert_eq!(seen(server.peer_certificates()), workload("client"));
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(server.server_name(), None, "SNI was sent");
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn a_peer_that_would_resume_gets_no_ticket_and_shakes_hands_in_full() {
    let authority = authority();
    let (client, web) = (issue(&authority, "client"), issue(&authority, "web"));
    let mut config = Arc::unwrap_or_clone(client.client_config(&workload("web")));
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    for _ in 0..2 {
        let (near, far) = handshake(config.clone(), web.server_config()).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        assert_eq!(near.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    // The other way round: our client keeps nothing of a server that hands out tickets.
    let mut server = Arc::unwrap_or_clone(web.server_config());
    server.send_tls13_tickets = 2;
    server.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    let server = Arc::new(server);
    let config = client.client_config(&workload("web"));
    for _ in 0..2 {
        let (near, far) = handshake(config.clone(), server.clone()).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let authority = authority();
    let web = issue(&authority, "web");
    let verifier = ExpectedWorkload {
        trust: authority.trust().clone(),
        expected: workload("web"),
    };
    let nobody = ClientConfig::builder_with_provider(authority.trust().provider().clone())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let (_, far) = handshake(Arc::new(nobody), web.server_config()).await;
    assert_eq!(
        tls_error(&far.unwrap_err()),
        &rustls::Error::NoCertificatesPresented
    );
}

#[tokio::test]
async fn no_alpn_is_fine_and_another_is_not() {
    let authority = authority();
    let (client, web) = (issue(&authority, "client"), issue(&authority, "web"));
    let mut config = Arc::unwrap_or_clone(client.client_config(&workload("web")));
    config.alpn_protocols = vec![];
    let (near, far) = handshake(Arc::new(config.clone()), web.server_config()).await;
    assert_eq!(near.unwrap().get_ref().1.alpn_protocol(), None);
    far.unwrap();

    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (near, far) = handshake(Arc::new(config), web.server_config()).await;
    assert_eq!(
        tls_error(&near.unwrap_err()),
        &rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
    );
    assert_eq!(
        tls_error(&far.unwrap_err()),
        &rustls::Error::NoApplicationProtocol
    );
}

/// A ClientHello of RFC 5246: a cipher suite of TLS 1.2, and no `supported_versions`.
#[test]
fn tls_1_2_is_refused() {
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]); // random
    body.push(0); // session id
    body.extend([0, 2, 0xc0, 0x2b]); // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([1, 0]); // no compression
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 29][..], // supported_groups: x25519
        &[0, 11, 0, 2, 1, 0],            // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3],      // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let length = |extra: usize| u16::try_from(body.len() + extra).unwrap().to_be_bytes();
    let record = [&[22, 3, 1][..], &length(4), &[1, 0], &length(0), &body].concat();

    let web = issue(&authority(), "web");
    let mut server = ServerConnection::new(web.server_config()).unwrap();
    server.read_tls(&mut record.as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error:?}");

    let mut answer = Vec::new();
    server.write_tls(&mut answer).unwrap();
    // A fatal alert (RFC 8446 section 6.2), protocol_version.
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
    assert!(server.reader().read(&mut [0]).is_err());
}

#[test]
fn a_certificate_is_valid_until_its_end_and_not_at_it() {
    let now = SystemTime::now();
    let web = authority().issue(&workload("web"), HOUR, now).unwrap();
    assert!(web.valid_at(now));
    assert!(!web.valid_at(web.not_after()));
    assert!(!web.valid_at(now - HOUR));
    assert!(web.not_after() <= now + HOUR);
    assert_eq!(web.identity(), &workload("web"));
}
