//! Plaintext from outside the mesh follows the pod's rows; without an agent nothing comes in and nothing goes out.

use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_kernel_tests::{Pod, V4, rows};
use tramline_node_agent::broker::{Broker, BrokerSettings, KernelVerdict, PodRows};

const SOON: Duration = Duration::from_millis(700);

fn at(port: u16) -> SocketAddr {
    let address: std::net::Ipv4Addr = V4.parse().unwrap_or_else(|error| panic!("{V4}: {error}"));
    SocketAddr::from((address, port))
}

/// A connect from the node, which is outside the mesh.
fn knock(pod: &Pod, port: u16) -> io::Result<TcpStream> {
    pod.reach_from_node();
    TcpStream::connect_timeout(&at(port), SOON)
}

fn refused(result: io::Result<TcpStream>) {
    match result {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        other => panic!("a closed door is neither open nor silent: {other:?}"),
    }
}

#[tokio::test]
async fn rows_open_and_close_ports() {
    let pod = Pod::new("c");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let asked = pod.inside(|| TcpListener::bind("0.0.0.0:81").expect("bind"));
    let closed = pod.inside(|| TcpListener::bind("0.0.0.0:82").expect("bind"));
    let mut by_port = PodRows {
        plaintext_default: plaintext::DROP,
        ..PodRows::default()
    };
    by_port
        .plaintext
        .extend([(80, plaintext::PASS), (81, plaintext::ASK), (83, plaintext::ASK)]);
    let enrolled = broker.enroll(&pod.netns(), &by_port).await.expect("enroll");

    let client = knock(&pod, 80).expect("PASS reaches the application");
    let (_, from) = app.accept().unwrap();
    assert_eq!(
        from,
        client.local_addr().unwrap(),
        "with the client's own address and port"
    );

    let client = knock(&pod, 81).expect("ASK reaches the agent");
    let listener = &enrolled.listeners.plaintext[0];
    listener.set_nonblocking(false).unwrap();
    let (accepted, from) = listener.accept().unwrap();
    assert_eq!(
        (accepted.local_addr().unwrap(), from),
        (at(81), client.local_addr().unwrap())
    );
    drop(asked);
    // It listened before the programs watched: the agent has to look.
    assert!(
        broker.follow_seeds(enrolled.id).expect("look"),
        "others listen still"
    );
    refused(knock(&pod, 81));

    refused(knock(&pod, 82));
    refused(knock(&pod, 83));
    drop(closed);

    // What the pod listens on later is learned by the programs, and forgotten when it closes.
    let late = pod.inside(|| TcpListener::bind("0.0.0.0:83").expect("bind"));
    knock(&pod, 83).expect("now somebody listens");
    drop(late);
    refused(knock(&pod, 83));

    // A change of the rows takes effect at once, in both directions.
    broker
        .update(enrolled.id, &rows(plaintext::DROP))
        .expect("update");
    refused(knock(&pod, 80));
    broker
        .update(enrolled.id, &rows(plaintext::PASS))
        .expect("update");
    knock(&pod, 80).expect("open again");
    broker.withdraw(enrolled.id).expect("withdraw");
    knock(&pod, 80).expect("a released pod is as before");
}

#[tokio::test]
async fn plaintext_is_known_where_nobody_listens_any_more() {
    let pod = Pod::new("lc");
    let listen = |address: &'static str| pod.inside(move || TcpListener::bind(address).expect("bind"));
    let before = listen("0.0.0.0:80");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let enrolled = broker.enroll(&pod.netns(), &rows(plaintext::PASS)).await;
    let id = enrolled.expect("enroll").id;
    let after = listen("0.0.0.0:81");
    let clients = [80, 81].map(|port| knock(&pod, port).expect("let in"));
    let _accepted = [&before, &after].map(|listener| listener.accept().expect("accept"));
    drop((before, after));
    broker.follow_seeds(id).expect("look");
    let found = broker.unvouched(id).expect("list");
    let mut remotes: Vec<_> = found.iter().map(|socket| socket.remote).collect();
    remotes.sort_unstable();
    let mut expected = clients.map(|client| client.local_addr().expect("address"));
    expected.sort_unstable();
    assert_eq!(remotes, expected);
}

/// A connection that the pod dials to the node from a port of its choice.
fn dial_from(pod: &Pod, port: u16, to: SocketAddr) -> TcpStream {
    let dialled = pod.inside(move || {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new([0, 0, 0, 0].into(), port).into())?;
        socket.connect_timeout(&to.into(), SOON)?;
        io::Result::Ok(TcpStream::from(socket))
    });
    dialled.unwrap_or_else(|error| panic!("from {port} to {to}: {error}"))
}

#[tokio::test]
async fn what_a_pod_dials_is_not_taken_for_plaintext_that_came_in() {
    let pod = Pod::new("ld");
    pod.reach_from_node();
    let node = |port| TcpListener::bind(("10.99.0.1", port)).expect("bind on the node");
    let (outside, excluded) = (node(4_444), node(4_445));
    let to = |listener: &TcpListener| listener.local_addr().expect("address");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let by_port = PodRows {
        excluded_outbound_ports: [4_445].into(),
        ..rows(plaintext::PASS)
    };
    let enrolled = broker.enroll(&pod.netns(), &by_port).await.expect("enroll");
    let id = enrolled.id;
    // On each of these ports the pod has listened, and on one of them it has let somebody in.
    let client = {
        let listen = |port| pod.inside(move || TcpListener::bind(("0.0.0.0", port)).expect("bind"));
        let mut listeners: Vec<_> = (81..=84).map(listen).collect();
        listeners.push(listen(85));
        let client = knock(&pod, 81).expect("let in");
        let (accepted, _) = listeners[0].accept().expect("accept");
        (client, accepted)
    };
    let captured = dial_from(&pod, 81, to(&outside));
    let carried = &enrolled.listeners.outbound[0];
    carried.set_nonblocking(false).expect("option");
    let carried = carried.accept().expect("captured");
    let versions = broker.versions(id, None).expect("versions");
    broker
        .set_verdict(id, to(&outside), KernelVerdict::Outside, versions)
        .expect("verdict");
    let passed = (
        dial_from(&pod, 82, to(&outside)),
        outside.accept().expect("let pass"),
    );
    let left_out = (
        dial_from(&pod, 83, to(&excluded)),
        excluded.accept().expect("excluded"),
    );
    let own = broker.egress_socket(id, to(&outside).ip()).expect("socket");
    own.set_nonblocking(false).expect("option");
    own.set_reuse_address(true).expect("option");
    own.bind(&SocketAddr::new([0, 0, 0, 0].into(), 84).into())
        .expect("bind");
    own.connect(&to(&outside).into()).expect("the agent's own");
    let found = broker.unvouched(id).expect("list");
    let remotes: Vec<_> = found.iter().map(|socket| socket.remote).collect();
    assert_eq!(remotes, [client.0.local_addr().expect("address")]);
    drop((captured, carried, passed, left_out, own));
}

#[tokio::test]
async fn where_a_pod_listened_before_is_known_to_the_next_agent_too() {
    let pod = Pod::new("lb");
    let listen = |address: &'static str| pod.inside(move || TcpListener::bind(address).expect("bind"));
    let (stays, closes) = (listen("0.0.0.0:80"), listen("0.0.0.0:81"));
    let broker = Broker::start(&pod.settings()).expect("broker");
    drop(
        broker
            .enroll(&pod.netns(), &rows(plaintext::ASK))
            .await
            .expect("enroll"),
    );
    drop(broker);
    drop(closes);
    let broker = Broker::start(&pod.settings()).expect("the next agent");
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::ASK))
        .await
        .expect("enroll again");
    let closed_ports = || {
        let counters = broker.counters();
        let found = counters.into_iter().find(|(event, _)| *event == "port_closed");
        found.map_or(0, |(_, count)| count)
    };
    knock(&pod, 80).expect("the agent is asked");
    refused(knock(&pod, 81));
    let dead = closed_ports();
    assert!(dead > 0, "the programs know that nobody listens");
    drop(stays);
    let began = std::time::Instant::now();
    assert!(!broker.follow_seeds(enrolled.id).expect("look"), "none is left");
    println!("one look: {:?}", began.elapsed());
    refused(knock(&pod, 80));
    assert!(closed_ports() > dead);
}

#[tokio::test]
async fn without_an_agent_nothing_passes_and_the_next_agent_takes_over() {
    let pod = Pod::new("d");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::ASK))
        .await
        .expect("enroll");
    let id = enrolled.id;
    // As `kill -9` does: descriptors close, pins stay.
    drop(enrolled);
    drop(broker);
    refused(knock(&pod, 80));
    refused(knock(&pod, 15_008));
    let outbound = pod.inside(|| TcpStream::connect_timeout(&"10.96.0.10:80".parse().unwrap(), SOON));
    outbound.expect_err("a captured connect finds no agent");

    let broker = Broker::start(&pod.settings()).expect("the next agent");
    assert_eq!(
        broker.left_over().expect("pins"),
        [id],
        "it knows whom it inherits"
    );
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::PASS))
        .await
        .expect("enroll again");
    assert_eq!(enrolled.id, id);
    knock(&pod, 80).expect("served again");
    app.accept().unwrap();
    let listener = &enrolled.listeners.outbound[0];
    listener.set_nonblocking(false).unwrap();
    let client = std::thread::scope(|scope| {
        let connect = scope
            .spawn(|| pod.inside(|| TcpStream::connect_timeout(&"10.96.0.10:80".parse().unwrap(), SOON)));
        listener.accept().expect("captured by the new agent");
        connect.join().unwrap()
    });
    client.expect("connected");
    broker.withdraw(id).expect("withdraw");
    assert!(broker.left_over().expect("pins").is_empty());
}

#[tokio::test]
async fn a_health_check_of_the_kubelet_reaches_a_pod_that_refuses_plaintext() {
    let pod = Pod::new("h");
    // This process plays the kubelet.
    let settings = BrokerSettings {
        kubelet_cgroup: Some(pod.settings().cgroup),
        ..pod.settings()
    };
    let broker = Broker::start(&settings).expect("broker");
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    let check = knock(&pod, 80).expect("the check is let in");
    let (accepted, from) = app.accept().unwrap();
    assert_eq!(from, check.local_addr().unwrap());
    let registered = || {
        broker
            .fill()
            .into_iter()
            .find(|fill| fill.map == "REGISTRY")
            .unwrap()
            .entries
    };
    assert_eq!(registered(), 1);
    drop((check, accepted));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(registered(), 0, "nothing stays open behind it");
    refused(knock(&pod, 81));
    // A process in a pod is never taken for the kubelet, whatever cgroup was named.
    let probes = || {
        broker
            .counters()
            .into_iter()
            .find(|(event, _)| *event == "probe")
            .unwrap()
            .1
    };
    let before = probes();
    pod.inside(|| TcpStream::connect_timeout(&at(80), SOON))
        .expect("to itself");
    assert_eq!(probes(), before);
    drop(broker);
    // The next agent is not told of a kubelet: then its checks are plaintext like any other.
    let broker = Broker::start(&pod.settings()).expect("broker");
    let again = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    refused(knock(&pod, 80));
    drop(enrolled);
    broker.withdraw(again.id).expect("withdraw");
}

#[test]
fn doctor_finds_this_machine_fit() {
    let pod = Pod::new("e");
    for check in tramline_node_agent::broker::checks(&pod.settings().cgroup) {
        assert_eq!(
            check.state,
            tramline_node_agent::doctor::CheckState::Ok,
            "{check:?}"
        );
    }
}
