//! Streams and connections: sharing, limits, release.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tramline_core::reason::Reason;
use tramline_core::workload::WorkloadUid;

use super::support::{Rig, echo, identity};
use crate::tunnel::{Served, Shown, TunnelSettings};

#[tokio::test]
async fn bytes_cross_and_the_second_stream_shares_the_connection() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    for message in [&b"hello"[..], &[7; 300_000]] {
        let (mut client, relayed) = rig.client(address).await;
        let (mut reader, mut writer) = client.split();
        let send = async {
            writer.write_all(message).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(send, reader.read_to_end(&mut received));
        read.unwrap();
        assert_eq!(received, message);
        assert_eq!(relayed.await.unwrap().reason, Reason::Ok);
    }
    assert_eq!(rig.stats.dials.load(Ordering::Relaxed), 1);
    assert_eq!(rig.pool.connections(), 1);
    rig.until(|s| &s.streams_open, 0).await;
}

#[tokio::test]
async fn the_server_sees_who_asks_for_what() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig
        .server_with(|request| async move {
            assert_eq!(request.authority(), "10.9.8.7:80");
            assert_eq!(request.forwarded_for(), Some("10.1.1.1:4000".parse().unwrap()));
            assert_eq!(
                (request.baggage(), request.traceparent()),
                (Some("k8s.namespace.name=shop"), None)
            );
            request.refuse(StatusCode::UNAUTHORIZED, Reason::PolicyDenied);
        })
        .await;
    let error = rig.open(address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::PolicyDenied, "{error}");
    assert!(error.to_string().contains("401"), "{error}");
    rig.until(|s| &s.streams_open, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_streams_share_few_connections_and_leave_nothing() {
    let rig = Rig::new(TunnelSettings {
        // Longer than a busy machine keeps a connection waiting for its first stream: else it says good-bye before.
        idle: Duration::from_secs(2),
        ..TunnelSettings::default()
    });
    // The test's processes share two cores: 2,000 streams take their time.
    let (address, _server) = rig
        .server_with(|request| async move {
            let mut stream = request.accept().unwrap();
            let data = stream.recv.data().await.unwrap().unwrap();
            stream.recv.flow_control().release_capacity(data.len()).unwrap();
            stream.send.send_data(data, true).unwrap();
            assert!(stream.recv.data().await.is_none());
            stream.settled = true;
        })
        .await;
    let mut streams: Vec<_> = join_all((0..2000).map(|_| rig.open(address)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let connections = rig.accepted.load(Ordering::Relaxed);
    assert!((32..=36).contains(&connections), "{connections} connections");
    for (i, stream) in (0_u32..).zip(&mut streams) {
        stream
            .send
            .send_data(i.to_be_bytes().to_vec().into(), true)
            .unwrap();
    }
    for (i, stream) in (0_u32..).zip(&mut streams) {
        assert_eq!(stream.recv.data().await.unwrap().unwrap()[..], i.to_be_bytes());
        assert!(stream.recv.data().await.is_none());
        stream.settled = true;
    }
    drop(streams);
    rig.until(|s| &s.streams_open, 0).await;
    rig.until(|s| &s.connections_open_client, 0).await;
    rig.until(|s| &s.connections_open_server, 0).await;
    assert_eq!(
        (rig.pool.connections(), rig.pool.keys()),
        (0, 0),
        "keys must not stay"
    );
}

#[tokio::test]
async fn a_peer_with_a_lower_limit_gets_more_connections_instead_of_queues() {
    let mut rig = Rig::new(TunnelSettings::default());
    rig.settings.max_inbound_streams = 3;
    let (address, _server) = rig.server(echo().await).await;
    // Learns the limit.
    drop(rig.open(address).await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut streams = Vec::new();
    for _ in 0..7 {
        let opened = tokio::time::timeout(Duration::from_secs(5), rig.open(address)).await;
        streams.push(opened.expect("waits for another stream's end").unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(rig.accepted.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn neither_identities_nor_workloads_share_a_connection() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let first = rig.open(address).await.unwrap();
    let mut key = rig.key(address);
    key.source_workload = WorkloadUid::new("another-pod");
    let second = rig.open_key(&key).await.unwrap();
    key.source = identity("other");
    let third = rig.open_key(&key).await.unwrap();
    assert_eq!(rig.pool.connections(), 3);
    drop((first, second, third));
}

#[tokio::test]
async fn a_workload_that_leaves_takes_its_tunnels_along() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let (mut client, relayed) = rig.client(address).await;
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    rig.pool.evict_source(&WorkloadUid::new("somebody-else"));
    assert_eq!(rig.pool.connections(), 1);
    rig.pool.evict_source(&WorkloadUid::new("source-pod"));
    assert_eq!((rig.pool.connections(), rig.pool.keys()), (0, 0));
    assert_eq!(relayed.await.unwrap().reason, Reason::Cancelled);
    rig.until(|s| &s.connections_open_client, 0).await;
}

#[tokio::test]
async fn a_destination_that_leaves_takes_its_tunnels_along() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let (mut client, relayed) = rig.client(address).await;
    client.write_all(b"x").await.unwrap();
    client.read_exact(&mut [0]).await.unwrap();
    rig.pool
        .retain_destinations(|at, who| at == address && *who == identity("server"));
    assert_eq!(rig.pool.connections(), 1);
    rig.pool
        .retain_destinations(|at, who| at == address && *who == identity("another"));
    assert_eq!((rig.pool.connections(), rig.pool.keys()), (0, 0));
    assert_eq!(relayed.await.unwrap().reason, Reason::UnknownWorkload);
    rig.until(|s| &s.connections_open_client, 0).await;
}

#[tokio::test]
async fn callers_of_a_destination_that_leaves_are_told_at_once() {
    let rig = Rig::new(TunnelSettings::default());
    let key = rig.key("127.0.0.1:9".parse().unwrap());
    let tls = Shown::to(&key.destination, &rig.source);
    let dial = || futures_util::FutureExt::boxed(std::future::pending());
    let open = rig.pool.open(&key, tls, dial, super::failures::request());
    let leave = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.pool.retain_destinations(|_, _| false);
    };
    let (opened, ()) = tokio::time::timeout(Duration::from_secs(1), async { tokio::join!(open, leave) })
        .await
        .expect("told at once");
    assert_eq!(opened.unwrap_err().reason(), Reason::UnknownWorkload);
}

#[tokio::test]
async fn a_closing_peer_gets_no_new_streams_and_keeps_the_old_one() {
    let rig = Rig::new(TunnelSettings::default());
    let closing = Arc::new(AtomicBool::new(false));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tls, settings, stats, close) = (
        Served::with(&rig.destination),
        rig.settings.clone(),
        Arc::clone(&rig.stats),
        Arc::clone(&closing),
    );
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = crate::tunnel::serve(tcp, tls.clone(), &settings, stats.clone())
                .await
                .unwrap();
            let close = Arc::clone(&close);
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Some(request) = connection.accept().await {
                    held.push(request.accept().unwrap());
                    if !close.swap(true, Ordering::SeqCst) {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    let first = rig.open(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = rig.open(address).await.unwrap();
    assert_eq!(rig.stats.dials.load(Ordering::Relaxed), 2);
    assert_eq!(rig.stats.connections_open_client.load(Ordering::Relaxed), 2);
    drop((first, second));
}

#[tokio::test]
async fn draining_lets_streams_finish_and_then_cuts_them() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let (mut client, relayed) = rig.client(address).await;
    let pool = Arc::clone(&rig.pool);
    let drained = tokio::spawn(async move { pool.drain(Duration::from_millis(300)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.write_all(b"still").await.unwrap();
    let mut buffer = [0; 5];
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(
        rig.open(address).await.unwrap_err().reason(),
        Reason::AgentDraining
    );
    drained.await.unwrap();
    assert_eq!(relayed.await.unwrap().reason, Reason::AgentDraining);
    assert_eq!(rig.stats.connections_open_client.load(Ordering::Relaxed), 0);
}
