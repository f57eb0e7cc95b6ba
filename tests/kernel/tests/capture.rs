//! A pod's connect reaches the agent's listener with every address true, and nothing else changes.

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_kernel_tests::{Pod, V4, V6, rows};
use tramline_node_agent::broker::Broker;

#[tokio::test]
async fn a_connect_is_captured_with_true_addresses() {
    let pod = Pod::new("a");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let mut enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    assert!(enrolled.addresses.contains(&V4.parse::<IpAddr>().unwrap()));
    for (target, own) in [
        ("10.96.0.10:80", V4),
        ("[fd96::10]:8080", V6),
        ("[::ffff:10.96.0.11]:81", V4),
    ] {
        let target: SocketAddr = target.parse().unwrap();
        let listener = &enrolled.listeners.outbound[usize::from(own == V6)];
        listener.set_nonblocking(false).unwrap();
        let client = std::thread::spawn({
            let netns = File::open(pod.netns()).unwrap();
            move || {
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                let mut stream =
                    TcpStream::connect_timeout(&target, Duration::from_secs(3)).expect("connect");
                assert_eq!(
                    stream.peer_addr().unwrap(),
                    target,
                    "getpeername is what was dialled"
                );
                stream.write_all(b"ping").unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                (stream.local_addr().unwrap(), answer)
            }
        });
        let (mut accepted, from) = listener.accept().expect("accept");
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        assert_eq!(
            accepted.local_addr().unwrap(),
            canonical(target),
            "the local address is the original destination"
        );
        assert_eq!(from.ip(), own.parse::<IpAddr>().unwrap());
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).unwrap();
        accepted.write_all(b"pong").unwrap();
        let (local, answer) = client.join().unwrap();
        assert_eq!(canonical(local), from);
        assert_eq!(&answer, b"pong");
    }
    enrolled.address_changes.close();
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn a_delivery_reaches_the_application_from_the_clients_address_and_plaintext_does_not() {
    let pod = Pod::new("b");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:5000").expect("bind"));
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    let client: SocketAddr = "10.99.7.7:40000".parse().unwrap();
    let target: SocketAddr = format!("{V4}:5000").parse().unwrap();
    let socket = broker.delivery_socket(enrolled.id, target.ip()).expect("socket");
    socket.set_nonblocking(false).unwrap();
    socket.bind(&client.into()).expect("bind to the client's address");
    socket
        .connect_timeout(&target.into(), Duration::from_secs(3))
        .expect("deliver");
    let (mut accepted, from) = app.accept().unwrap();
    assert_eq!(from, client);
    let mut stream: TcpStream = socket.into();
    stream.write_all(b"hello").unwrap();
    let mut bytes = [0; 5];
    accepted.read_exact(&mut bytes).unwrap();
    let filled = |broker: &Broker| {
        broker
            .fill()
            .into_iter()
            .find(|f| f.map == "REGISTRY")
            .unwrap()
            .entries
    };
    assert_eq!(filled(&broker), 1);
    drop(stream);
    drop(accepted);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(filled(&broker), 0, "the registry entry went with its socket");
    // A closed port answers a delivery at once, though the client's address is not local.
    let closed: SocketAddr = format!("{V4}:5001").parse().unwrap();
    let socket = broker.delivery_socket(enrolled.id, closed.ip()).expect("socket");
    socket.set_nonblocking(false).unwrap();
    socket
        .bind(&"10.99.7.7:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let error = socket
        .connect_timeout(&closed.into(), Duration::from_secs(3))
        .expect_err("nothing listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    broker.withdraw(enrolled.id).expect("withdraw");
}
