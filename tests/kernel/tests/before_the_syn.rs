//! Between the hook that lets a `connect` pass and its SYN: what may be no longer is the agent's, and so is what cannot be noted.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use aya::maps::{HashMap, Map, MapData};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
    unistd::{Uid, seteuid},
};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};
use tramline_common::{
    Address,
    map::{FlowKey, name},
    service::MAX_LOADS,
    verdict::{MAX_PASSED, Passed, ServiceAt},
};
use tramline_kernel_tests::NEIGHBOUR_V6;
use tramline_kernel_tests::two::{Two, server, two};
use tramline_node_agent::broker::{KernelVerdict, ServiceEndpoint};

/// Longer than a verdict on what leaves the mesh is good for.
const LATER: Duration = Duration::from_millis(400);

fn socket(two: &Two) -> Socket {
    two.source
        .inside(|| Socket::new(Domain::IPV4, Type::STREAM, None))
        .expect("socket")
}

/// `connect` returns without a SYN, which the first bytes bring.
fn defer(two: &Two, socket: &Socket) {
    // `TFO_CLIENT_ENABLE` and `TFO_CLIENT_NO_COOKIE` of the kernel's Documentation/networking/ip-sysctl.rst.
    two.source
        .inside(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "5"))
        .expect("sysctl");
    setsockopt(socket, sockopt::TcpFastOpenConnect, &true).expect("option");
}

#[tokio::test]
async fn what_was_let_out_long_ago_is_the_agents_to_decide() {
    let (two, app) = two("ba").await;
    two.broker.withdraw(two.to.id).expect("withdraw");
    two.decide(KernelVerdict::Outside);
    // At once: as without a mesh.
    let first = socket(&two);
    defer(&two, &first);
    first.connect(&server().into()).expect("no SYN yet");
    TcpStream::from(first).write_all(b"x").expect("sent");
    app.accept().expect("as without a mesh");
    assert_eq!(two.count("captured"), 0);

    let second = socket(&two);
    defer(&two, &second);
    second.connect(&server().into()).expect("no SYN yet");
    std::thread::sleep(LATER);
    let mut second = TcpStream::from(second);
    second.write_all(b"x").expect("sent");
    let (captured, peer) = Two::waits(&two.from.listeners.outbound).expect("captured");
    assert_eq!(captured.local_addr().expect("address"), server());
    assert_eq!(peer, second.local_addr().expect("address"));
    assert_eq!(two.count("captured"), 1);
    let noted = two.broker.passed();
    assert!(
        noted.iter().all(|connection| connection.client != peer),
        "the kernel carries it not: {noted:?}"
    );

    // The pod itself has changed: no matter how soon.
    let third = socket(&two);
    defer(&two, &third);
    third.connect(&server().into()).expect("no SYN yet");
    two.broker.renew_version(two.from.id).expect("version");
    TcpStream::from(third).write_all(b"x").expect("sent");
    Two::waits(&two.from.listeners.outbound).expect("captured");
}

#[tokio::test]
async fn what_there_is_no_room_to_note_is_the_agents() {
    for (tag, map, is_inside) in [("bb", name::OUTSIDE, false), ("bc", name::DIRECT, true)] {
        let (two, app) = two(tag).await;
        if is_inside {
            two.decide(KernelVerdict::Direct(two.to.id));
        } else {
            two.broker.withdraw(two.to.id).expect("withdraw");
            two.decide(KernelVerdict::Outside);
        }
        let held = two.dial().expect("let pass");
        app.accept().expect("at the application itself");
        let pinned = MapData::from_pin(two.source.pinned_maps().join(map)).expect("pinned");
        let mut table: HashMap<MapData, FlowKey, Passed> =
            HashMap::try_from(Map::HashMap(pinned)).expect("a table of connections");
        let filling = (0..).map(|number| FlowKey {
            pod: 1 << 40,
            remote: Address::v4([10, 0, 0, 1]),
            local: Address::v4([10, 0, 0, 2]),
            remote_port: (number % 65_536) as u16,
            local_port: (number / 65_536) as u16,
            reserved: 0,
        });
        let nobody = Passed {
            socket: 0,
            source: 1 << 40,
            source_version: 0,
            destination_version: 0,
            service: ServiceAt::NONE,
        };
        let filled = filling
            .take(MAX_PASSED)
            .take_while(|key| table.insert(key, nobody, 0).is_ok());
        assert!(filled.count() >= MAX_PASSED - 1);
        let captured = two.count("captured");
        let client = two.dial().expect("the agent takes it");
        let (carried, peer) = Two::waits(&two.from.listeners.outbound).expect("captured");
        assert_eq!(carried.local_addr().expect("address"), server());
        assert_eq!(peer, client.local_addr().expect("address"));
        assert_eq!(
            (two.count("captured"), two.count("passed_full")),
            (captured + 1, 1)
        );
        // It was dialled as a Service, and is shown as one.
        let verdict = if is_inside {
            KernelVerdict::Direct(two.to.id)
        } else {
            KernelVerdict::Outside
        };
        leave_service(&two, verdict);
        let client = two.dial_to(service()).expect("the agent takes it");
        let (carried, _) = Two::waits(&two.from.listeners.outbound).expect("captured");
        assert_eq!(carried.local_addr().expect("address"), server());
        assert_eq!(client.peer_addr().expect("address"), service());
        assert_eq!(two.count("passed_full"), 2);
        drop(held);
    }
}

fn service() -> SocketAddr {
    SocketAddr::new([10, 96, 0, 1].into(), 81)
}

/// Has the kernel lead connections to a Service to the second pod's server; answers with the row where they are counted.
fn leave_service(two: &Two, verdict: KernelVerdict) -> u32 {
    let destination = matches!(verdict, KernelVerdict::Direct(_)).then_some(two.to.id);
    let versions = two.broker.versions(two.from.id, destination);
    let versions = versions.expect("versions");
    let load = u32::try_from(MAX_LOADS - 1).expect("small");
    two.broker.endpoint_loads().assign(load, server());
    let endpoint = ServiceEndpoint {
        address: server(),
        verdict: Some((verdict, versions)),
        load,
    };
    two.broker
        .set_service(two.from.id, service(), versions, &[endpoint])
        .expect("service");
    load
}

#[tokio::test]
async fn a_connect_that_never_came_to_a_syn_counts_for_nothing() {
    let (two, app) = two("bd").await;
    let load = leave_service(&two, KernelVerdict::Direct(two.to.id));
    let service = service();
    // The first connection of the socket is refused (that nothing listens is not known yet), and the socket has its callbacks still.
    let socket = socket(&two);
    drop(app);
    let refused = socket.connect(&service.into()).expect_err("led");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(two.broker.endpoint_loads().kernel(load), 0);
    // Let pass again, and closed before a SYN was sent.
    let led = two.count("service_led");
    defer(&two, &socket);
    socket.connect(&service.into()).expect("no SYN yet");
    assert_eq!(two.count("service_led"), led + 1);
    drop(socket);
    std::thread::sleep(LATER);
    assert_eq!(two.broker.endpoint_loads().kernel(load), 0);

    let _app = two
        .neighbour
        .inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let _client = two.dial_to(service).expect("led");
    assert_eq!(two.broker.endpoint_loads().kernel(load), 1);
}

/// Binds a socket to the device that leads to the server, as a process may that has no privilege.
fn bind_to_device(client: &Socket, privileged: bool) {
    if !privileged {
        seteuid(Uid::from_raw(65_534)).expect("a user");
    }
    client.bind_device(Some(b"eth1")).expect("towards the server");
}

#[tokio::test]
async fn a_device_that_is_bound_after_the_connect_leads_nothing_past_the_agent() {
    for (tag, verdict, privileged) in [
        ("be", None, true),
        ("bf", Some(KernelVerdict::Outside), true),
        ("bg", None, false),
        ("bi", Some(KernelVerdict::Outside), false),
    ] {
        let (two, app) = two(tag).await;
        app.set_nonblocking(true).expect("option");
        two.broker.withdraw(two.to.id).expect("withdraw");
        if let Some(verdict) = verdict {
            two.decide(verdict);
        }
        let client = socket(&two);
        defer(&two, &client);
        client.connect(&server().into()).expect("no SYN yet");
        bind_to_device(&client, privileged);
        let mut client = TcpStream::from(client);
        // The answer to what is led to loopback does not find a socket that is bound to another device.
        client.set_write_timeout(Some(LATER)).expect("option");
        let sent = client.write_all(b"x");
        seteuid(Uid::from_raw(0)).expect("root again");
        let captured = Two::waits(&two.from.listeners.outbound);
        assert!(app.accept().is_err(), "it left the pod: {verdict:?}");
        println!("privileged {privileged}, {verdict:?}: {sent:?}");
        if privileged {
            let (captured, peer) = captured.expect("captured");
            assert_eq!(captured.local_addr().expect("address"), server());
            assert_eq!(peer, client.local_addr().expect("address"));
            assert_eq!(two.count("device_unbound"), 1);
        }
        assert_eq!(two.count("captured"), 1);
        assert_eq!(two.broker.passed(), []);
    }
}

#[tokio::test]
async fn a_device_that_is_bound_after_the_syn_leads_nothing_past_the_agent() {
    for (tag, to) in [
        ("bj", server()),
        (
            "bk",
            SocketAddr::new(NEIGHBOUR_V6.parse().expect("an address"), 80),
        ),
    ] {
        let (two, _app) = two(tag).await;
        two.broker.withdraw(two.to.id).expect("withdraw");
        let client = two.dial_to(to).expect("the agent takes it");
        let _captured = Two::waits(&two.from.listeners.outbound).expect("captured");
        // `InSegs` of the kernel's table, of both families: what came to the neighbour.
        let arrived = || {
            let table = two
                .neighbour
                .inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters"));
            let values = table.lines().filter(|line| line.starts_with("Tcp:")).nth(1);
            let segments = values
                .and_then(|values| values.split(' ').nth(10))
                .map(str::to_owned);
            segments.expect("a number")
        };
        let before = arrived();
        let client = Socket::from(client);
        bind_to_device(&client, false);
        let _ = TcpStream::from(client).write_all(b"in the clear");
        seteuid(Uid::from_raw(0)).expect("root again");
        std::thread::sleep(LATER);
        assert_eq!(arrived(), before, "nothing left the pod, to {to}");
    }
}

/// Both ends dial, and the first's SYN is lost: what comes next for it is the other's SYN, not an answer.
#[tokio::test]
async fn a_connection_that_both_ends_dialled_is_forgotten_when_it_ends() {
    let (two, app) = two("bh").await;
    drop(app);
    two.broker.withdraw(two.to.id).expect("withdraw");
    two.decide(KernelVerdict::Outside);
    let own = SocketAddr::new([10, 98, 0, 1].into(), 4_000);
    let dial = |from: SocketAddr, to: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.set_nonblocking(true).expect("option");
        socket.bind(&from.into()).expect("bind");
        let begun = socket.connect(&to.into()).expect_err("not at once");
        assert_eq!(begun.raw_os_error(), Some(Errno::EINPROGRESS as i32));
        socket
    };
    two.source.believe_neighbour(Some("02:00:00:00:00:99"));
    let any = SocketAddr::new([0, 0, 0, 0].into(), own.port());
    let first = two.source.inside(move || dial(any, server()));
    let second = two.neighbour.inside(move || dial(server(), own));
    std::thread::sleep(Duration::from_millis(100));
    two.source.believe_neighbour(None);
    let until = Instant::now() + Duration::from_secs(5);
    while (first.peer_addr().is_err() || second.peer_addr().is_err()) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    first.peer_addr().expect("connected");
    assert_eq!(two.broker.passed().len(), 1);
    drop((first, second));
    std::thread::sleep(LATER);
    assert_eq!(two.broker.passed(), [], "forgotten");
}
