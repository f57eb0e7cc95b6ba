//! How long the registry lets a delivery's 4-tuple in.

use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_kernel_tests::{Pod, V4, rows};
use tramline_node_agent::broker::Broker;

const NODE: &str = "10.99.0.1";
const SOON: Duration = Duration::from_secs(2);

/// An address of a test.
#[expect(clippy::unwrap_used, reason = "written in this file")]
fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

fn from_port(port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at(NODE, port).into())?;
    socket.connect_timeout(&at(V4, 80).into(), SOON)?;
    Ok(socket.into())
}

#[tokio::test]
async fn a_delivery_lets_nobody_else_in_when_its_application_has_gone() {
    let pod = Pod::new("w");
    pod.reach_from_node();
    let broker = Broker::start(&pod.settings()).expect("broker");
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    from_port(40_001).expect_err("plaintext is refused");

    let delivery = broker
        .delivery_socket(enrolled.id, NODE.parse().unwrap())
        .expect("socket");
    delivery.set_nonblocking(false).unwrap();
    delivery.bind(&at(NODE, 40_001).into()).expect("bind");
    let to = at(V4, 80);
    delivery.connect(&to.into()).expect("the delivery is let in");
    let (application, from) = app.accept().unwrap();
    assert_eq!(from, at(NODE, 40_001));

    // The application closes and its side is gone after a second; the delivering side is still open.
    pod.inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", "1").expect("sysctl"));
    drop(application);
    std::thread::sleep(Duration::from_millis(2_500));
    let undecided = from_port(40_001).expect_err("nobody decided this connection");
    assert_eq!(undecided.kind(), io::ErrorKind::ConnectionRefused);
    drop(delivery);
    broker.withdraw(enrolled.id).expect("withdraw");
}
