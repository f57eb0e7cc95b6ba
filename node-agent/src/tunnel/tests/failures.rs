//! Peers that do not answer, answer wrongly, or go away.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tramline_core::reason::Reason;

use super::support::{Rig, echo, identity, pair};
use crate::tunnel::{ConnectRequest, Forwarded, Served, Shown, TunnelSettings, serve};

const SHORT: Duration = Duration::from_secs(1);
/// What "about one deadline" may be on a busy machine, well below two of them in a row for six callers.
const ABOUT_ONE: Duration = Duration::from_millis(1900);

fn short() -> TunnelSettings {
    TunnelSettings {
        connect: SHORT,
        tls: SHORT,
        http2: SHORT,
        ..TunnelSettings::default()
    }
}

/// The same with a certificate that ends at `expires`.
fn until(shown: Shown, expires: SystemTime) -> Shown {
    Shown { expires, ..shown }
}

pub(super) fn request() -> ConnectRequest {
    ConnectRequest {
        authority: "10.9.8.7:80".parse().unwrap(),
        forwarded: Forwarded {
            client: "10.1.1.1:4000".parse().unwrap(),
            host: None,
        },
        baggage: None,
        traceparent: None,
    }
}

#[tokio::test]
async fn callers_of_a_black_hole_fail_together_and_disturb_nobody() {
    let rig = Rig::new(short());
    let (alive, _server) = rig.server(echo().await).await;
    let key = rig.key("127.0.0.1:9".parse().unwrap());
    let started = Instant::now();
    let callers = join_all((0..6).map(|_| {
        let tls = Shown::to(&key.destination, &rig.source);
        let dial = || std::future::pending().boxed();
        rig.pool.open(&key, tls, dial, request())
    }));
    let other = async {
        drop(rig.open(alive).await.unwrap());
        started.elapsed()
    };
    let (results, other) = tokio::join!(callers, other);
    let elapsed = started.elapsed();
    for result in results {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::ConnectTimeout);
        assert!(error.to_string().contains("15008"), "{error}");
    }
    assert!(SHORT <= elapsed && elapsed < ABOUT_ONE, "{elapsed:?}");
    assert!(other < SHORT, "another destination waited {other:?}");
    assert_eq!(
        rig.stats.dials.load(Ordering::Relaxed),
        2,
        "one for all six, one for the other"
    );
    assert_eq!(rig.pool.keys(), 1);
}

#[tokio::test]
async fn callers_of_a_peer_that_never_speaks_tls_fail_together() {
    let rig = Rig::new(short());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let started = Instant::now();
    let results = join_all((0..6).map(|_| rig.open(address))).await;
    let elapsed = started.elapsed();
    for result in results {
        assert_eq!(result.unwrap_err().reason(), Reason::HandshakeTimeout);
    }
    assert!(SHORT <= elapsed && elapsed < ABOUT_ONE, "{elapsed:?}");
    assert_eq!((rig.stats.dials.load(Ordering::Relaxed), rig.pool.keys()), (1, 0));
}

#[tokio::test]
async fn a_peer_that_ends_tls_and_then_stays_silent_is_given_up() {
    let rig = Rig::new(short());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = rig.destination.server_config();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _held = tokio_rustls::TlsAcceptor::from(tls).accept(tcp).await.unwrap();
        std::future::pending::<()>().await;
    });
    let started = Instant::now();
    for result in join_all((0..40).map(|_| rig.open(address))).await {
        result.unwrap_err();
    }
    assert!(started.elapsed() < 3 * SHORT, "{:?}", started.elapsed());
    rig.until(|s| &s.connections_open_client, 0).await;
    assert_eq!(rig.pool.keys(), 0);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_end_the_attempt_of_the_others() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let key = rig.key(address);
    let tls = Shown::to(&key.destination, &rig.source);
    let slow = move || {
        async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            TcpStream::connect(address).await
        }
        .boxed()
    };
    let first = rig.pool.open(&key, tls, slow, request());
    assert!(
        tokio::time::timeout(Duration::from_millis(50), first)
            .await
            .is_err()
    );
    rig.open(address).await.unwrap();
    assert_eq!(rig.stats.dials.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn refused_impostor_and_expired_each_have_their_reason() {
    let rig = Rig::new(TunnelSettings::default());
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        rig.open(closed).await.unwrap_err().reason(),
        Reason::ConnectRefused
    );

    let (address, _server) = rig.server(echo().await).await;
    let mut key = rig.key(address);
    key.destination = identity("another");
    assert_eq!(
        rig.open_key(&key).await.unwrap_err().reason(),
        Reason::PeerIdentityMismatch
    );
    // Even if the TLS configuration had let the peer in.
    let tls = Shown::to(&identity("server"), &rig.source);
    let dial = move || TcpStream::connect(address).boxed();
    let error = rig.pool.open(&key, tls, dial, request()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::PeerIdentityMismatch);

    let key = rig.key(address);
    let tls = Shown::to(&key.destination, &rig.source);
    let error = rig
        .pool
        .open(&key, until(tls, SystemTime::now()), dial, request())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Reason::NoCertificate);
    assert_eq!(rig.pool.keys(), 0);
}

#[tokio::test]
async fn no_stream_starts_on_a_connection_whose_certificate_ended() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let key = rig.key(address);
    let tls = Shown::to(&key.destination, &rig.source);
    let soon = SystemTime::now() + Duration::from_millis(500);
    let dial = move || TcpStream::connect(address).boxed();
    let old = rig
        .pool
        .open(&key, until(tls, soon), dial, request())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let new = rig.open(address).await.unwrap();
    assert_eq!(rig.accepted.load(Ordering::Relaxed), 2);
    drop((old, new));
}

#[tokio::test]
async fn a_silent_client_and_half_a_client_hello_are_closed_in_time() {
    let rig = Rig::new(short());
    for sent in [&b""[..], &[22, 3, 1, 2, 0, 1, 0, 1]] {
        let (mut client, inner) = pair().await;
        client.write_all(sent).await.unwrap();
        let started = Instant::now();
        let error = serve(
            inner,
            Served::with(&rig.destination),
            &rig.settings,
            rig.stats.clone(),
        )
        .await
        .unwrap_err();
        assert_eq!(error.reason(), Reason::HandshakeTimeout);
        assert!(
            (SHORT..ABOUT_ONE).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
        assert!(!matches!(client.read(&mut [0]).await, Ok(1..)), "closed");
    }
    assert_eq!(rig.stats.server_handshakes.failed(), 2);
}

#[tokio::test]
async fn tls_without_a_preface_is_closed_in_time() {
    let rig = Rig::new(short());
    let (client, inner) = pair().await;
    let connector = tokio_rustls::TlsConnector::from(rig.source.client_config(&identity("server")));
    let name = rustls_pki_types::ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
    let (_client, served) = tokio::join!(
        connector.connect(name, client),
        serve(
            inner,
            Served::with(&rig.destination),
            &rig.settings,
            rig.stats.clone()
        )
    );
    assert_eq!(served.unwrap_err().reason(), Reason::HandshakeTimeout);
}

#[tokio::test]
async fn a_connection_that_stops_answering_is_given_up_and_replaced() {
    let settings = TunnelSettings {
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(200),
        ..TunnelSettings::default()
    };
    let rig = Rig::new(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tls, settings, stats) = (
        Served::with(&rig.destination),
        rig.settings.clone(),
        rig.stats.clone(),
    );
    tokio::spawn(async move {
        let mut frozen = Vec::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = serve(tcp, tls.clone(), &settings, stats.clone()).await.unwrap();
            let stream = connection.accept().await.unwrap().accept().unwrap();
            // Long enough for the answer to leave; then the connection freezes with its TCP open.
            let _ = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
            frozen.push((connection, stream));
        }
    });
    let mut stream = rig.open(address).await.unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(3), stream.recv.data()).await;
    assert!(lost.expect("notices").unwrap().is_err());
    rig.until(|s| &s.connections_open_client, 0).await;
    rig.open(address).await.unwrap();
}

/// The peer of a pooled connection goes silent (its node is gone, its agent stuck) while a fresh connection to the
/// same address would work.
#[tokio::test]
async fn a_pooled_connection_that_falls_silent_holds_nobody_up() {
    let rig = Rig::new(TunnelSettings::default());
    let (server, _server) = rig.server(echo().await).await;
    let (address, freeze) = super::support::freezer(server).await;
    let (mut client, relayed) = rig.client(address).await;
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    freeze.send_replace(true);

    let started = Instant::now();
    for stream in join_all((0..10).map(|_| rig.open(address))).await {
        stream.unwrap();
    }
    let noticed = started.elapsed();
    assert!(
        noticed < Duration::from_secs(5),
        "{noticed:?} until another was tried"
    );
    let started = Instant::now();
    rig.open(address).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(rig.stats.connections_suspected.load(Ordering::Relaxed), 1);
    assert!(
        !relayed.is_finished(),
        "what is open has until the PING's deadline"
    );
}

#[tokio::test]
async fn the_streams_of_a_lost_tunnel_say_so() {
    let settings = TunnelSettings {
        ping_interval: Duration::from_millis(200),
        ping_timeout: Duration::from_millis(300),
        ..TunnelSettings::default()
    };
    let rig = Rig::new(settings);
    let (server, _server) = rig.server(echo().await).await;
    let (address, freeze) = super::support::freezer(server).await;
    let (mut client, relayed) = rig.client(address).await;
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    freeze.send_replace(true);
    let end = tokio::time::timeout(Duration::from_secs(5), relayed).await;
    assert_eq!(end.unwrap().unwrap().reason, Reason::TunnelLost);
    // The server's own PING may run out too.
    assert!((1..=2).contains(&rig.stats.connections_lost.load(Ordering::Relaxed)));
}

#[tokio::test]
async fn a_fresh_connection_that_falls_silent_is_named() {
    let rig = Rig::new(TunnelSettings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tls, settings, stats) = (
        Served::with(&rig.destination),
        rig.settings.clone(),
        rig.stats.clone(),
    );
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let _frozen = serve(tcp, tls, &settings, stats).await.unwrap();
        std::future::pending::<()>().await;
    });
    let started = Instant::now();
    let error = rig.open(address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::TunnelLost, "{error}");
    assert!(error.to_string().contains("silent"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn requests_other_than_connect_get_400() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let connector = tokio_rustls::TlsConnector::from(rig.source.client_config(&identity("server")));
    let tcp = TcpStream::connect(address).await.unwrap();
    let tls = connector.connect(address.ip().into(), tcp).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    let get = http::Request::get("https://10.9.8.7/").body(()).unwrap();
    let (response, _) = sender.send_request(get, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 400);
}
