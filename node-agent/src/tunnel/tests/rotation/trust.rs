//! Peers that are not believed any more.

use futures_util::future::join_all;

use super::*;

#[tokio::test]
async fn a_removed_root_cuts_live_connections_at_both_ends_within_a_second() {
    let hour = Duration::from_secs(3600);
    let (there, here) = (made("bundle.pem"), made("bundle.pem"));
    let root = |dir: &TempDir| fs::read_to_string(dir.path().join("ca/root.pem")).unwrap();
    let both = root(&there) + &root(&here);
    put(&there.path().join("bundle.pem"), &both);
    put(&here.path().join("bundle.pem"), &both);
    let (server, client) = (Agent::start(there, hour), Agent::start(here, hour));
    let (address, mut ends) = server.serve().await;
    for by_server in [true, false] {
        let (mut held, relayed) = client.hold(address).await;
        let agent = if by_server { &server } else { &client };
        let began = Instant::now();
        agent.trust(&[&agent.root()]);
        let error = held.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let (near, far) = (relayed.await.unwrap(), ends.recv().await.unwrap());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        let end = if by_server { &far } else { &near };
        assert_eq!(end.reason, Reason::PeerUntrusted, "{near:?} {far:?}");
        let refused = client.open(address).await.unwrap_err();
        assert!(!refused.contains("expired"), "{refused}");
        agent.trust(&[&both]);
    }
}

#[tokio::test]
async fn nothing_new_goes_to_a_server_from_the_moment_that_it_is_not_believed() {
    let hour = Duration::from_secs(3600);
    let (there, here) = (made("bundle.pem"), made("bundle.pem"));
    let root = |dir: &TempDir| fs::read_to_string(dir.path().join("ca/root.pem")).unwrap();
    let both = root(&there) + &root(&here);
    put(&there.path().join("bundle.pem"), &both);
    put(&here.path().join("bundle.pem"), &both);
    let (server, client) = (Agent::start(there, hour), Agent::start(here, hour));
    let (address, _ends) = server.serve().await;
    client.exchange(address).await.unwrap();
    let certificate = client.store.get(&identity("client")).await.unwrap();
    let (key, dialled) = (to_server(address), AtomicBool::new(false));
    let dial = || {
        dialled.store(true, Ordering::Relaxed);
        TcpStream::connect(address).boxed()
    };
    let shown = Shown::to(&key.destination, &certificate);
    let mut opening = Box::pin(client.pool.open(&key, shown, dial, request()));
    client.trust(&[&client.root()]);
    // Until this first look the tunnel's own task has not been told of the change.
    assert!(opening.as_mut().now_or_never().is_none());
    assert!(
        dialled.load(Ordering::Relaxed),
        "a tunnel of before the change is used"
    );
    let refused = opening.await.map(drop).unwrap_err();
    assert_eq!(refused.reason(), Reason::PeerUntrusted, "{refused}");
}

/// Passes what clients say on at once, and what the server says after `delay`.
async fn slow_answers(server: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let server = TcpStream::connect(server).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut chunk = [0; 16 << 10];
                while let Ok(length @ 1..) = from_server.read(&mut chunk).await {
                    tokio::time::sleep(delay).await;
                    if to_client.write_all(&chunk[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn who_joined_a_tunnel_that_is_refused_for_the_trust_of_before_makes_another() {
    let hour = Duration::from_secs(3600);
    let (there, here) = (made("bundle.pem"), made("bundle.pem"));
    let root = |dir: &TempDir| fs::read_to_string(dir.path().join("ca/root.pem")).unwrap();
    let both = root(&there) + &root(&here);
    put(&here.path().join("bundle.pem"), &both);
    let (server, client) = (Agent::start(there, hour), Agent::start(here, hour));
    let delay = Duration::from_millis(100);
    let (server_address, _ends) = server.serve().await;
    let address = slow_answers(server_address, delay).await;
    for callers in [1, 40] {
        let began = (
            server.stats.server_handshakes.failed(),
            client.stats.dials.load(Ordering::Relaxed),
        );
        let first = join_all((0..callers).map(|_| client.open(address)));
        // The server has refused the first by then, and the refusal is under way.
        let second = async {
            until(|| server.stats.server_handshakes.failed() > began.0).await;
            server.trust(&[&both]);
            client.open(address).await.map(drop)
        };
        let (first, second) = tokio::join!(first, second);
        // Who began it has its answer; the others of 40 came after it, too.
        let refused: Vec<_> = first.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 1, "{callers}: {refused:?}");
        assert!(refused[0].starts_with("certificate_refused: "), "{refused:?}");
        second.unwrap();
        let dials = client.stats.dials.load(Ordering::Relaxed) - began.1;
        assert_eq!(dials, 2, "the others came while the first was under way");
        server.trust(&[&server.root()]);
        until(|| client.pool.connections() == 0).await;
    }
}

async fn until(so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_whose_certificate_the_server_does_not_accept_is_told_so() {
    let hour = Duration::from_secs(3600);
    let (there, here) = (made("bundle.pem"), made("bundle.pem"));
    let root = |dir: &TempDir| fs::read_to_string(dir.path().join("ca/root.pem")).unwrap();
    put(&here.path().join("bundle.pem"), &(root(&there) + &root(&here)));
    let (server, client) = (Agent::start(there, hour), Agent::start(here, hour));
    let (address, _ends) = server.serve().await;
    // Often: the answer races with what the client sends without waiting for it.
    for _ in 0..50 {
        let refused = client.open(address).await.unwrap_err();
        assert!(refused.starts_with("certificate_refused: "), "{refused}");
        assert!(refused.contains("UnknownCA"), "{refused}");
    }
}

#[tokio::test]
async fn a_revoked_certificate_cuts_live_connections_and_the_next_one_is_let_in() {
    let dir = made("copy.pem");
    put(&dir.path().join("crl.pem"), &revoke(dir.path(), &[]));
    let agent = Agent::start(dir, Duration::from_secs(3600));
    let (address, mut ends) = agent.serve().await;
    let (mut held, _relay) = agent.hold(address).await;
    let serial = agent.serial();
    put(
        &agent.dir.path().join("crl.pem"),
        &revoke(agent.dir.path(), &[&serial]),
    );
    let began = Instant::now();
    agent.reload();
    held.read(&mut [0]).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(agent.store.certificates()[0].identity, identity("client"));
    assert_eq!(ends.recv().await.unwrap().reason, Reason::PeerUntrusted);
    // The agent that showed the certificate reads the same list, and makes another.
    let give_up = began + Duration::from_secs(5);
    while let Err(error) = agent.exchange(address).await {
        assert!(Instant::now() < give_up, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_ne!(agent.serial(), serial);
}

fn revoke(state: &Path, serials: &[&str]) -> String {
    let key = KeyPair::from_pem(&fs::read_to_string(state.join("ca/root-key.pem")).unwrap()).unwrap();
    let root = CertificateDer::from_pem_slice(&fs::read(state.join("ca/root.pem")).unwrap()).unwrap();
    let now = SystemTime::now();
    let bytes = |hex: &str| -> Vec<u8> {
        let pairs = (0..hex.len()).step_by(2);
        pairs
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let revoked = |serial: &&str| RevokedCertParams {
        serial_number: SerialNumber::from_slice(&bytes(serial)),
        revocation_time: now.into(),
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + Duration::from_secs(3600)).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
    .signed_by(&Issuer::from_ca_cert_der(&root, key).unwrap())
    .unwrap()
    .pem()
    .unwrap()
}
