//! What the kernel does with a connection to a Service that the agent lets it resolve.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use tramline_common::service::{MAX_ENDPOINTS, MAX_ENDPOINTS_OF_ROW, picked};
use tramline_kernel_tests::two::{SOON, Two, server, two};
use tramline_node_agent::broker::{KernelVerdict, ServiceEndpoint};

/// Rows in which connections to the two endpoints count.
const LOADS: [u32; 2] = [1, 2];

fn service() -> SocketAddr {
    SocketAddr::new([10, 96, 0, 1].into(), 81)
}

/// An endpoint on another node.
fn far() -> SocketAddr {
    SocketAddr::new([10, 97, 0, 1].into(), 5000)
}

/// Lets the kernel choose between endpoints; `None` are the agent's.
fn leave(two: &Two, endpoints: &[(SocketAddr, Option<KernelVerdict>)]) {
    let versions = |verdict| {
        let destination = match verdict {
            KernelVerdict::Direct(pod) | KernelVerdict::Deny(pod) => Some(pod),
            KernelVerdict::Outside => None,
        };
        two.broker
            .versions(two.from.id, destination)
            .expect("both pods have a version")
    };
    let endpoints: Vec<_> = endpoints
        .iter()
        .zip(LOADS)
        .map(|((address, verdict), load)| ServiceEndpoint {
            address: *address,
            verdict: verdict.map(|verdict| (verdict, versions(verdict))),
            load,
        })
        .collect();
    for endpoint in &endpoints {
        let loads = two.broker.endpoint_loads();
        loads.assign(endpoint.load, endpoint.address);
        assert_eq!(loads.owner(endpoint.load), Some(endpoint.address));
    }
    two.broker
        .set_service(
            two.from.id,
            service(),
            versions(KernelVerdict::Outside),
            &endpoints,
        )
        .expect("service");
}

/// Dials the Service; answers with the choice that the agent is told, once the connection is the agent's.
fn handed_over(two: &Two) -> Option<u32> {
    let client = two.dial_to(service()).expect("the agent takes it");
    let (captured, _) = Two::waits(&two.from.listeners.outbound).expect("captured");
    assert_eq!(captured.local_addr().expect("address"), service(), "as dialled");
    assert_eq!(client.peer_addr().expect("address"), service());
    picked(socket2::SockRef::from(&captured).mark().expect("mark"))
}

fn exchange(client: &mut TcpStream, app: &TcpListener) {
    let (mut accepted, peer) = app.accept().expect("at the application itself");
    assert_eq!(peer, client.local_addr().expect("address"), "no address between");
    client.write_all(b"ping").expect("write");
    let mut got = [0; 4];
    accepted.read_exact(&mut got).expect("read");
    accepted.write_all(b"pong").expect("write");
    client.read_exact(&mut got).expect("read");
    assert_eq!(&got, b"pong");
}

#[tokio::test]
async fn a_service_leads_to_its_endpoint_and_keeps_its_name() {
    let (two, app) = two("sa").await;
    assert_eq!(handed_over(&two), None, "nothing was left");
    leave(&two, &[(server(), Some(KernelVerdict::Direct(two.to.id)))]);
    let mut client = two.dial_to(service()).expect("led");
    assert_eq!(client.peer_addr().expect("address"), service());
    exchange(&mut client, &app);
    let live = two.broker.passed();
    assert_eq!(live.len(), 1, "{live:?}");
    assert_eq!((live[0].destination, live[0].server), (Some(two.to.id), server()));

    let mapped = SocketAddr::new("::ffff:10.96.0.1".parse().expect("address"), service().port());
    let mut client = two
        .source
        .inside(move || {
            let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)?;
            socket.connect(&mapped.into()).map(|()| TcpStream::from(socket))
        })
        .expect("led");
    assert_eq!(client.peer_addr().expect("address"), mapped);
    let (_accepted, peer) = app.accept().expect("at the application itself");
    let own = client.local_addr().expect("address");
    assert_eq!((peer.ip(), peer.port()), (own.ip().to_canonical(), own.port()));
    client.write_all(b"x").expect("write");
    assert_eq!((two.count("service_led"), two.count("direct_delivered")), (2, 2));

    // Who dials the endpoint itself sees the endpoint.
    two.decide(KernelVerdict::Direct(two.to.id));
    let client = two.dial().expect("direct");
    assert_eq!(client.peer_addr().expect("address"), server());
}

#[tokio::test]
async fn what_the_kernel_may_not_do_is_handed_over_with_the_choice() {
    let (two, app) = two("sb").await;
    leave(&two, &[(far(), None)]);
    assert_eq!(handed_over(&two), Some(0));
    assert_eq!(two.count("service_handed_over"), 1);

    // A change of the endpoint's pod, or of the one who dials.
    leave(&two, &[(server(), Some(KernelVerdict::Direct(two.to.id)))]);
    drop(two.dial_to(service()).expect("led"));
    app.accept().expect("at the application itself");
    two.broker.renew_version(two.to.id).expect("version");
    assert_eq!(
        handed_over(&two),
        Some(0),
        "the agent decides about the same endpoint"
    );
    leave(&two, &[(server(), Some(KernelVerdict::Direct(two.to.id)))]);
    two.broker.renew_version(two.from.id).expect("version");
    assert_eq!(handed_over(&two), None, "the whole row is void");

    // Nothing listens: the agent can try another endpoint.
    let other = SocketAddr::new(server().ip(), 5001);
    let bind = || TcpListener::bind("0.0.0.0:5001").expect("bind");
    leave(&two, &[(other, Some(KernelVerdict::Direct(two.to.id)))]);
    assert_eq!(handed_over(&two), Some(0));
    let app = two.neighbour.inside(bind);
    drop(two.dial_to(service()).expect("led"));
    app.accept().expect("at the application itself");
    drop(app);
    assert_eq!(handed_over(&two), Some(0));
    assert_eq!(two.count("service_not_listening"), 2);

    two.broker.remove_service(two.from.id, service()).expect("remove");
    assert_eq!(handed_over(&two), None);
    let used: Vec<_> = two
        .broker
        .fill()
        .into_iter()
        .filter(|fill| fill.map == "ENDPOINTS")
        .collect();
    assert_eq!(used[0].entries, 0, "nothing is left over");
}

#[tokio::test]
async fn a_listener_that_was_there_before_is_followed_too() {
    // Its server listens before the enrolment.
    let (two, app) = two("sf").await;
    leave(&two, &[(server(), Some(KernelVerdict::Direct(two.to.id)))]);
    assert!(
        two.broker.follow_seeds(two.to.id).expect("look"),
        "it listens still"
    );
    drop(two.dial_to(service()).expect("led"));
    app.accept().expect("at the application itself");
    // One that came later on the same port counts by itself.
    let bind = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None)?;
        socket.set_only_v6(true)?;
        socket.bind(&SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), 80).into())?;
        socket.listen(1)?;
        io::Result::Ok(socket)
    };
    let second = two.neighbour.inside(bind).expect("listen");
    drop(app);
    assert!(!two.broker.follow_seeds(two.to.id).expect("look"));
    assert_eq!(two.count("service_not_listening"), 0);
    drop(two.dial_to(service()));
    assert_eq!(two.count("service_not_listening"), 0, "the second one listens");
    drop(second);
    assert_eq!(handed_over(&two), Some(0), "the agent can try another endpoint");
    assert_eq!(two.count("service_not_listening"), 1);
}

#[tokio::test]
async fn a_service_that_the_kernel_refuses_leaves_nothing_not_even_what_was_there() {
    let (two, app) = two("sg").await;
    leave(&two, &[(server(), Some(KernelVerdict::Direct(two.to.id)))]);
    drop(two.dial_to(service()).expect("led"));
    app.accept().expect("at the application itself");
    let versions = two.broker.versions(two.from.id, None).expect("version");
    let many = vec![
        ServiceEndpoint {
            address: far(),
            verdict: None,
            load: 0,
        };
        MAX_ENDPOINTS_OF_ROW
    ];
    let set = |dialled| two.broker.set_service(two.from.id, dialled, versions, &many);
    let others = MAX_ENDPOINTS / MAX_ENDPOINTS_OF_ROW - 1;
    for port in 1..=others {
        let port = u16::try_from(port).expect("a port");
        set(SocketAddr::new([10, 96, 0, 2].into(), port)).expect("room");
    }
    set(service()).expect_err("no room");
    assert!(!two.broker.has_service(two.from.id, service()));
    let fill = two.broker.fill();
    let endpoints = fill.iter().find(|fill| fill.map == "ENDPOINTS").expect("map");
    assert_eq!(
        endpoints.entries,
        others * MAX_ENDPOINTS_OF_ROW,
        "nothing is left over"
    );
    assert_eq!(handed_over(&two), None);
}

#[tokio::test]
async fn an_endpoint_that_is_denied_refuses_with_an_honest_error() {
    let (two, _app) = two("sc").await;
    leave(&two, &[(server(), Some(KernelVerdict::Deny(two.to.id)))]);
    let refused = two.dial_to(service()).expect_err("denied");
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(two.count("verdict_denied"), 1);
}

#[tokio::test]
async fn the_less_busy_of_two_is_chosen_whoever_carries_the_connections() {
    let (two, app) = two("sd").await;
    let near = Some(KernelVerdict::Direct(two.to.id));
    leave(&two, &[(server(), near), (far(), None)]);
    let loads = two.broker.endpoint_loads();

    // The other endpoint is busy with what the agent carries.
    loads.set_agent(LOADS[1], 1_000);
    let mut held = Vec::new();
    for _ in 0..20 {
        let client = two.dial_to(service()).expect("led");
        let (accepted, _) = app.accept().expect("at the application itself");
        held.push((client, accepted));
    }
    assert_eq!(loads.kernel(LOADS[0]), 20, "what the kernel carries counts");

    // Now this one is the busier.
    loads.set_agent(LOADS[1], 0);
    for _ in 0..20 {
        assert_eq!(handed_over(&two), Some(1));
    }
    held.clear();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(loads.kernel(LOADS[0]), 0, "what has ended does not");

    // Equally busy: each has its share.
    let mut far_ones = 0;
    for _ in 0..200 {
        let before = two.count("service_handed_over");
        drop(two.dial_to(service()).expect("somebody takes it"));
        if two.count("service_handed_over") > before {
            far_ones += 1;
            Two::waits(&two.from.listeners.outbound).expect("captured");
        } else {
            app.accept().expect("at the application itself");
            // Its end is counted a moment later than the client's close returns.
            while loads.kernel(LOADS[0]) > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert!((60..=140).contains(&far_ones), "{far_ones} of 200");
}

#[tokio::test]
async fn a_refused_connection_does_not_count_for_ever() {
    let (two, app) = two("se").await;
    two.broker.withdraw(two.to.id).expect("withdraw");
    leave(&two, &[(server(), Some(KernelVerdict::Outside))]);
    drop(app);
    let refused = two.dial_to(service()).expect_err("nothing listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(two.broker.endpoint_loads().kernel(LOADS[0]), 0);
    let app = two
        .neighbour
        .inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let mut client = two.dial_to(service()).expect("led out of the mesh");
    assert_eq!(client.peer_addr().expect("address"), service());
    exchange(&mut client, &app);
    assert_eq!(two.broker.endpoint_loads().kernel(LOADS[0]), 1);
    client.set_read_timeout(Some(SOON)).expect("timeout");
    assert_eq!(client.read(&mut [0]).expect("closed by the server"), 0);
}
