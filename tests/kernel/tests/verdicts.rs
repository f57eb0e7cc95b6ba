//! What the kernel does by a verdict that the agent left, and when it does so no longer.
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};
use tramline_kernel_tests::two::{SOON, Two, server, two};
use tramline_node_agent::broker::KernelVerdict;

#[tokio::test]
async fn a_verdict_lets_a_connection_go_from_pod_to_pod_and_nothing_else_does() {
    let (two, app) = two("va").await;
    drop(
        two.dial()
            .expect("the agent's listener takes what has no verdict"),
    );
    let (captured, _) = Two::waits(&two.from.listeners.outbound).expect("captured");
    assert_eq!(captured.local_addr().expect("address"), server());

    two.decide(KernelVerdict::Direct(two.to.id));
    let mut client = two.dial().expect("direct");
    let (mut accepted, peer) = app.accept().expect("at the application itself");
    assert_eq!(
        peer,
        client.local_addr().expect("address"),
        "the client's own socket"
    );
    assert_eq!(client.peer_addr().expect("address"), server());
    client.write_all(b"ping").expect("write");
    let mut got = [0; 4];
    accepted.read_exact(&mut got).expect("read");
    let live = two.broker.passed();
    assert_eq!(live.len(), 1, "{live:?}");
    assert_eq!(
        (live[0].source, live[0].destination),
        (two.from.id, Some(two.to.id))
    );
    assert_eq!((live[0].client, live[0].server), (peer, server()));
    assert_eq!(
        two.broker.direct_source(two.to.id, peer, server()),
        Some(two.from.id)
    );
    drop((client, accepted));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(two.broker.passed(), [], "what has ended is not listed");
    assert_eq!(
        (two.count("passed_direct"), two.count("direct_delivered")),
        (1, 1)
    );
}

#[tokio::test]
async fn a_change_of_either_pod_makes_its_verdicts_void() {
    let (two, app) = two("vb").await;
    for (changed, other) in [(two.from.id, two.to.id), (two.to.id, two.from.id)] {
        two.decide(KernelVerdict::Direct(two.to.id));
        drop(two.dial().expect("direct"));
        app.accept().expect("at the application itself");
        two.broker.renew_version(changed).expect("version");
        drop(two.dial().expect("the agent takes it"));
        Two::waits(&two.from.listeners.outbound).expect("captured");
        two.broker.renew_version(other).expect("version");
    }
    assert_eq!(two.count("verdict_stale"), 2);
    // A verdict made from versions that were read before a change is void from the start.
    let before = two
        .broker
        .versions(two.from.id, Some(two.to.id))
        .expect("versions");
    two.broker.renew_version(two.to.id).expect("version");
    two.broker
        .set_verdict(two.from.id, server(), KernelVerdict::Direct(two.to.id), before)
        .expect("verdict");
    drop(two.dial().expect("the agent takes it"));
    Two::waits(&two.from.listeners.outbound).expect("captured");
}

#[tokio::test]
async fn a_syn_that_arrives_after_a_change_is_the_agents_to_decide() {
    let (two, _app) = two("vc").await;
    two.decide(KernelVerdict::Direct(two.to.id));
    two.neighbour.link("down");
    let dialling = {
        let netns = two.source.netns();
        std::thread::spawn(move || {
            tramline_kernel_tests::inside(&netns, || TcpStream::connect_timeout(&server(), SOON * 4))
        })
    };
    let until = Instant::now() + SOON;
    while two.count("passed_direct") == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    two.broker.renew_version(two.to.id).expect("version");
    two.neighbour.link("up");
    let client = dialling.join().expect("thread").expect("the agent answers");
    let (_agent, peer) = Two::waits(&two.to.listeners.plaintext).expect("handed to the agent");
    assert_eq!(peer, client.local_addr().expect("address"));
    assert_eq!(
        two.broker.direct_source(two.to.id, peer, server()),
        Some(two.from.id),
        "the agent knows whose it is"
    );
    assert_eq!(two.count("direct_delivered"), 0);
}

#[tokio::test]
async fn a_verdict_can_refuse_with_an_honest_error() {
    let (two, _app) = two("vd").await;
    two.decide(KernelVerdict::Deny(two.to.id));
    let refused = two.dial().expect_err("denied");
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(two.count("verdict_denied"), 1);
    two.broker.remove_verdict(two.from.id, server()).expect("remove");
    drop(two.dial().expect("the agent takes it"));
}

#[tokio::test]
async fn what_leaves_the_mesh_passes_and_can_be_cut() {
    let (two, app) = two("ve").await;
    // Not a pod any more: an address like any other.
    two.broker.withdraw(two.to.id).expect("withdraw");
    two.decide(KernelVerdict::Outside);
    let mut client = two.dial().expect("outside");
    let (_accepted, peer) = app.accept().expect("as without a mesh");
    let live = two.broker.passed();
    assert_eq!(live.len(), 1, "{live:?}");
    assert_eq!(
        (live[0].destination, live[0].client, live[0].server),
        (None, peer, server())
    );
    two.broker.cut(&live[0]).expect("cut");
    client.set_read_timeout(Some(SOON)).expect("timeout");
    let cut = client.read(&mut [0]).expect_err("cut");
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(two.broker.passed(), []);
}

#[tokio::test]
async fn both_ends_of_a_forbidden_connection_are_cut() {
    let (two, app) = two("vf").await;
    two.decide(KernelVerdict::Direct(two.to.id));
    let mut client = two.dial().expect("direct");
    let (mut accepted, _) = app.accept().expect("accept");
    let live = two.broker.passed();
    two.broker.cut(&live[0]).expect("cut");
    for end in [&mut client, &mut accepted] {
        end.set_read_timeout(Some(SOON)).expect("timeout");
        let cut = end.read(&mut [0]).expect_err("cut");
        assert!(
            matches!(
                cut.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
            ),
            "{cut}"
        );
    }
}

#[tokio::test]
async fn a_cut_that_comes_too_late_ends_nothing_else() {
    let (two, app) = two("vh").await;
    two.decide(KernelVerdict::Direct(two.to.id));
    let client = two.dial().expect("direct");
    let accepted = app.accept().expect("accept");
    let live = two.broker.passed();
    drop((client, accepted));
    std::thread::sleep(Duration::from_millis(200));
    two.broker.cut(&live[0]).expect("it is gone already");
    two.dial().expect("the server still listens");
    app.accept().expect("accept");
}

#[tokio::test]
async fn a_socket_that_is_dialled_again_is_judged_again() {
    let (two, app) = two("vg").await;
    let socket = two
        .source
        .inside(|| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None));
    let socket = socket.expect("socket");
    socket
        .set_tcp_user_timeout(Some(Duration::from_secs(1)))
        .expect("option");
    // Captured, and nobody answers: the mark stays on the socket.
    for listener in &two.from.listeners.outbound {
        let listener = socket2::SockRef::from(listener);
        listener
            .shutdown(std::net::Shutdown::Both)
            .expect("stop listening");
    }
    let refused = socket.connect(&server().into()).expect_err("no agent");
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    two.decide(KernelVerdict::Direct(two.to.id));
    socket.connect(&server().into()).expect("direct, the mark gone");
    app.accept().expect("at the application itself");
    assert_eq!(two.broker.passed().len(), 1);

    // Let pass and refused by the destination: the next connect of the same socket has no verdict.
    let socket = two
        .source
        .inside(|| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None));
    let socket = socket.expect("socket");
    socket
        .set_tcp_user_timeout(Some(Duration::from_secs(1)))
        .expect("option");
    drop(app);
    let refused = socket.connect(&server().into()).expect_err("nothing listens");
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let direct = two.count("passed_direct");
    two.broker.renew_version(two.to.id).expect("version");
    let refused = socket.connect(&server().into()).expect_err("no agent");
    assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
    assert_eq!(two.count("passed_direct"), direct);
    assert_eq!(two.broker.passed().len(), 1, "only the first socket's connection");
}
