//! Memory, back-pressure and windows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tramline_core::counters::ByteCounters;
use tramline_core::reason::Reason;

use super::support::{Rig, application, echo, pair};
use crate::tunnel::{BufferBudget, Pool, Side, TunnelSettings, TunnelStats, relay, relay_tcp};

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
        // All of them at once would be more than a peer may send between two looks, however busy this machine is.
        if sent % 4096 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    stream.send.send_data(bytes::Bytes::new(), true).unwrap();
    let mut received = Vec::new();
    timeout(Duration::from_secs(30), server.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(received.len(), sent);
}

/// More of them than fit in any one window must not take the tunnel from an application that reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applications_that_do_not_read_leave_the_others_their_window() {
    let rig = Rig::new(TunnelSettings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let stalled_application = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            held.push(tcp);
        }
    });
    let live_application = echo().await;
    let stalled = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (count, budget) = (Arc::clone(&stalled), rig.settings.stream_window as usize);
    let (address, _server) = rig
        .server_with(move |request| {
            let first = count.fetch_add(1, Ordering::Relaxed) < 70;
            let application = if first {
                stalled_application
            } else {
                live_application
            };
            async move {
                let tcp = TcpStream::connect(application).await.unwrap();
                SockRef::from(&tcp).set_send_buffer_size(4096).unwrap();
                let stream = request.accept().unwrap();
                relay(tcp, stream, Side::Destination, &ByteCounters::default()).await;
            }
        })
        .await;
    let mut streams = Vec::new();
    for _ in 0..70 {
        let mut stream = rig.open(address).await.unwrap();
        // As much as the window admits.
        let mut sent = 0;
        while sent < budget {
            stream.send.reserve_capacity(256 << 10);
            let capacity = std::future::poll_fn(|cx| stream.send.poll_capacity(cx));
            match timeout(Duration::from_secs(2), capacity).await {
                Ok(more) => drop(more.unwrap().unwrap()),
                Err(_) => break,
            }
            let chunk = stream.send.capacity().min(256 << 10);
            stream.send.send_data(vec![2; chunk].into(), false).unwrap();
            sent += chunk;
        }
        streams.push(stream);
    }
    let (mut client, _relayed) = rig.client(address).await;
    client.write_all(&[7; 100_000]).await.unwrap();
    let mut answer = vec![0; 100_000];
    timeout(Duration::from_secs(2), client.read_exact(&mut answer))
        .await
        .expect("an application that reads waits for those that do not")
        .unwrap();
    assert!(
        rig.stats.buffers.held() > 60 << 20,
        "{}",
        rig.stats.buffers.held()
    );
    assert_eq!(rig.stats.buffers.cut(), 0);
    drop(streams);
    // Both sides of the one that reads.
    rig.until(|s| &s.streams_open, 2).await;
    assert_eq!(rig.stats.buffers.held(), 0, "what is held goes with its stream");
}

#[tokio::test]
async fn past_the_budget_the_stream_that_is_stuck_the_longest_is_cut() {
    let mut rig = Rig::new(TunnelSettings::default());
    rig.stats = Arc::new(TunnelStats {
        buffers: BufferBudget::new(3 << 20),
        ..TunnelStats::default()
    });
    rig.pool = Pool::new(rig.settings.clone(), Arc::clone(&rig.stats));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener).set_recv_buffer_size(4096).unwrap();
    let application = listener.local_addr().unwrap();
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let (address, _server) = rig
        .server_with(move |request| {
            let ended = ended.clone();
            async move {
                let tcp = TcpStream::connect(application).await.unwrap();
                SockRef::from(&tcp).set_send_buffer_size(4096).unwrap();
                let stream = request.accept().unwrap();
                let end = relay(tcp, stream, Side::Destination, &ByteCounters::default()).await;
                let _ = ended.send(end);
            }
        })
        .await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = rig.open(address).await.unwrap();
        stream.send.send_data(vec![2; 1 << 20].into(), false).unwrap();
        streams.push(stream);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let end = timeout(Duration::from_secs(5), ends.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(end.reason, Reason::LimitReached, "{end:?}");
    let cut = streams.remove(0).recv.data().await.unwrap().unwrap_err();
    let reason = cut.reason().and_then(crate::tunnel::reset::reason_of);
    assert_eq!(reason, Some(Reason::LimitReached), "the oldest");
    assert_eq!(rig.stats.buffers.cut(), 1, "and no other");
    assert!(rig.stats.buffers.held() <= rig.stats.buffers.limit());
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
                for _ in 0..500 {
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
    let total = 3 * rig.settings.client_window() as usize;
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
