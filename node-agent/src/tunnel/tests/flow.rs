//! Memory, back-pressure and windows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tramline_core::counters::ByteCounters;

use super::support::{Rig, application, echo, pair};
use crate::tunnel::{Side, TunnelSettings, relay, relay_tcp};

/// Bytes of a relay's state per connection; its buffers exist only while bytes are on their way.
const RELAY_STATE: usize = 1024;

#[tokio::test]
async fn an_idle_relay_is_small() {
    let rig = Rig::new(TunnelSettings::default());
    let (address, _server) = rig.server(echo().await).await;
    let counters = ByteCounters::default();
    let tunnel = relay(
        pair().await.0,
        rig.open(address).await.unwrap(),
        Side::Source,
        &counters,
    );
    let plain = relay_tcp(pair().await.0, pair().await.0, &counters);
    let sizes = (size_of_val(&tunnel), size_of_val(&plain));
    assert!(sizes.0 <= RELAY_STATE && sizes.1 <= RELAY_STATE, "{sizes:?}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_sender() {
    let settings = TunnelSettings::default();
    let window = settings.stream_window as usize;
    let rig = Rig::new(settings);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, _server) = rig.server(listener.local_addr().unwrap()).await;
    let ((mut client, _relayed), accepted) = tokio::join!(rig.client(address), listener.accept());
    let mut server = accepted.unwrap().0;
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), client.write(&[9; 65536])).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing stops the sender");
    }
    // Two sockets' buffers on either side (at most 4 and 6 MiB each by the kernel's defaults) and the stream's window.
    assert!(sent < window + (24 << 20), "{sent}");
    // And all of it arrives once it is read.
    client.shutdown().await.unwrap();
    let mut read = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match timeout(Duration::from_secs(10), server.read(&mut buffer))
            .await
            .unwrap()
            .unwrap()
        {
            0 => break,
            n => read += n,
        }
    }
    assert_eq!(read, sent);
}

#[tokio::test]
async fn a_stalled_reader_of_tiny_messages_does_not_cost_the_connection() {
    let rig = Rig::new(TunnelSettings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Sockets that hold next to nothing, so that the frames pile up in the agent.
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let application = listener.local_addr().unwrap();
    let (address, _server) = rig
        .server_with(move |request| async move {
            let tcp = TcpStream::connect(application).await.unwrap();
            SockRef::from(&tcp).set_send_buffer_size(4096).unwrap();
            let stream = request.accept().unwrap();
            relay(tcp, stream, Side::Destination, &ByteCounters::default()).await;
        })
        .await;
    let mut stream = rig.open(address).await.unwrap();
    let mut server = listener.accept().await.unwrap().0;
    // Twice what h2's budget for small frames (half the connection's window, 256 for each) would bear.
    let frames = 2 * (64 << 20) / 2 / 256;
    let mut sent = 0;
    for _ in 0..frames {
        stream.send.reserve_capacity(1);
        while stream.send.capacity() == 0 {
            let capacity = std::future::poll_fn(|cx| stream.send.poll_capacity(cx));
            match timeout(Duration::from_secs(5), capacity).await {
                Ok(more) => drop(more.expect("open").expect("no error")),
                Err(_) => panic!("no window after {sent} bytes"),
            }
        }
        stream
            .send
            .send_data(bytes::Bytes::from_static(b"x"), false)
            .unwrap();
        sent += 1;
    }
    stream.send.send_data(bytes::Bytes::new(), true).unwrap();
    let mut received = Vec::new();
    timeout(Duration::from_secs(30), server.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received.len(), sent);
}

/// Whatever was in flight towards a stream that is aborted must not be held against its connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_downloads_do_not_cost_the_connection() {
    let rig = Arc::new(Rig::new(TunnelSettings::default()));
    let source =
        application(|mut tcp| async move { while tcp.write_all(&[3; 32 << 10]).await.is_ok() {} }).await;
    let (address, _server) = rig.server(source).await;
    let aborters = (0..20).map(|_| {
        let rig = Arc::clone(&rig);
        tokio::spawn(async move {
            for _ in 0..100 {
                let mut stream = rig.open(address).await.unwrap();
                stream.recv.data().await.unwrap().unwrap();
                stream.reset();
            }
        })
    });
    for aborter in aborters.collect::<Vec<_>>() {
        aborter.await.unwrap();
    }
    rig.until(|s| &s.streams_open, 0).await;
    // The first callers come before the limit is known, so there may be two.
    let dials = rig.stats.dials.load(Ordering::Relaxed);
    assert!(dials <= 2, "{dials} connections for 20 streams at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_streams_give_their_window_back() {
    let rig = Arc::new(Rig::new(TunnelSettings::default()));
    let sink = application(|mut tcp| async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(1..) = tcp.read(&mut buffer).await {}
    })
    .await;
    let (address, _server) = rig.server(sink).await;
    let aborters: Vec<_> = (0..20)
        .map(|_| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                for _ in 0..250 {
                    let mut stream = rig.open(address).await.unwrap();
                    stream.send.send_data(vec![1; 30_000].into(), false).unwrap();
                    tokio::task::yield_now().await;
                    stream.reset();
                }
            })
        })
        .collect();
    for aborter in aborters {
        aborter.await.unwrap();
    }
    rig.until(|s| &s.streams_open, 0).await;
    // Three times the connection's window fits only if the window came back.
    let mut stream = rig.open(address).await.unwrap();
    let total = 3 * rig.settings.connection_window as usize;
    let mut sent = 0;
    while sent < total {
        stream.send.reserve_capacity(256 << 10);
        while stream.send.capacity() == 0 {
            let capacity = std::future::poll_fn(|cx| stream.send.poll_capacity(cx));
            timeout(Duration::from_secs(10), capacity)
                .await
                .expect("window")
                .unwrap()
                .unwrap();
        }
        let chunk = stream.send.capacity().min(256 << 10);
        stream.send.send_data(vec![2; chunk].into(), false).unwrap();
        sent += chunk;
    }
    stream.reset();
}
