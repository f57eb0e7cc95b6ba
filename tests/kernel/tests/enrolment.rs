//! What enrolment finds in a namespace: connections that are older than it, and interfaces it must not touch.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_kernel_tests::{Pod, V4, rows};
use tramline_node_agent::broker::{Broker, BrokerError};

#[tokio::test]
async fn connections_older_than_the_enrolment_are_found_and_can_be_ended() {
    let pod = Pod::new("f");
    let broker = Broker::start(&pod.settings()).expect("broker");
    // Dual stack: its IPv4 connections are mapped ones.
    let app = pod.inside(|| TcpListener::bind("[::]:80").expect("bind"));
    pod.reach_from_node();
    let target: SocketAddr = format!("{V4}:80").parse().unwrap();
    let mut client = TcpStream::connect_timeout(&target, Duration::from_secs(2)).expect("before enrolment");
    let (mut accepted, _) = app.accept().unwrap();
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    let [old] = enrolled.already_open[..] else {
        panic!("one connection, not {:?}", enrolled.already_open)
    };
    assert_eq!(
        (old.local.port(), old.remote.port()),
        (80, client.local_addr().unwrap().port())
    );
    assert!(old.inbound);
    client.write_all(b"still").expect("it goes on");
    let mut bytes = [0; 5];
    accepted.read_exact(&mut bytes).unwrap();

    assert_eq!(broker.close(enrolled.id, &[old]).expect("close"), 1);
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let error = client.read(&mut bytes).expect_err("an abort, not an end of file");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(broker.close(enrolled.id, &[old]).expect("it is gone"), 0);
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn a_pod_with_guests_or_that_forwards_is_refused() {
    let pod = Pod::new("g");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let ip = |args: &str| {
        let status = Command::new("ip")
            .args(["-n", pod.name()])
            .args(args.split(' '))
            .status();
        assert!(status.expect("ip").success(), "ip -n {} {args}", pod.name());
    };
    ip("link add docker0 type bridge");
    let refused = broker.enroll(&pod.netns(), &rows(plaintext::DROP)).await;
    assert!(
        matches!(refused, Err(BrokerError::Foreign(ref name)) if name == "docker0"),
        "{:?}",
        refused.err()
    );
    ip("link del docker0");
    pod.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("sysctl");
    let refused = broker.enroll(&pod.netns(), &rows(plaintext::DROP)).await;
    assert!(
        matches!(refused, Err(BrokerError::Forwards)),
        "{:?}",
        refused.err()
    );
    pod.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0"))
        .expect("sysctl");
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("now it may");
    broker.withdraw(enrolled.id).expect("withdraw");
    let home = broker
        .enroll("/proc/self/ns/net".as_ref(), &rows(plaintext::DROP))
        .await;
    assert!(
        matches!(home, Err(BrokerError::HostNetwork(_))),
        "{:?}",
        home.err()
    );
}
