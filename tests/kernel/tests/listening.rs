//! The table of ports on which pods listen: what one pod does with it is not the others' harm, and its counts come back to
//! what is.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use aya::maps::{HashMap, Map, MapData};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};
use tramline_common::{
    PodId,
    map::{MAX_POD_ROWS, PodPort, direction, name, plaintext},
};
use tramline_kernel_tests::{Neighbour, Pod, V4, rows, two::Two};
use tramline_node_agent::broker::{Broker, Enrolled};

const SOON: Duration = Duration::from_secs(2);

fn table(pod: &Pod) -> HashMap<MapData, PodPort, u64> {
    let pinned = MapData::from_pin(pod.pinned_maps().join(name::LISTENING)).expect("pinned");
    HashMap::try_from(Map::HashMap(pinned)).expect("a table of ports")
}

/// Rows of one pod.
fn rows_of(table: &HashMap<MapData, PodPort, u64>, pod: PodId) -> usize {
    let keys = table.keys().take(2 * MAX_POD_ROWS).filter_map(Result::ok);
    keys.filter(|key| key.pod == pod).count()
}

fn count(broker: &Broker, event: &str) -> u64 {
    let counters = broker.counters();
    let found = counters.iter().find(|(name, _)| *name == event);
    found.map_or(0, |(_, count)| *count)
}

fn is_captured(neighbour: &Neighbour, enrolled: &Enrolled) {
    let elsewhere = SocketAddr::new([10, 98, 0, 1].into(), 4_444);
    let client = neighbour.inside(move || TcpStream::connect_timeout(&elsewhere, SOON));
    let (captured, _) = Two::waits(&enrolled.listeners.outbound).expect("captured");
    assert_eq!(captured.local_addr().expect("address"), elsewhere);
    drop(client);
}

fn open(neighbour: &Neighbour, ports: std::ops::Range<u16>) -> Vec<TcpListener> {
    neighbour.inside(move || {
        ports
            .map(|port| TcpListener::bind(("0.0.0.0", port)).expect("bind"))
            .collect()
    })
}

#[tokio::test]
async fn a_pod_that_has_listened_everywhere_keeps_nobody_out() {
    let pod = Pod::new("ua");
    let neighbour = pod.neighbour();
    let broker = Broker::start(&pod.settings()).expect("broker");
    let greedy = broker.enroll(&pod.netns(), &rows(plaintext::DROP)).await;
    let greedy = greedy.expect("enroll").id;
    let everywhere = || {
        let ports = 1..=u16::MAX;
        pod.inside(move || {
            ports
                .filter(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
                .count()
        })
    };
    let listened = everywhere();
    let table = table(&pod);
    println!("listened on {listened} ports: {} rows", rows_of(&table, greedy));
    assert!(rows_of(&table, greedy) > MAX_POD_ROWS - 10);
    let apps = open(&neighbour, 8_000..8_020);
    let enrolled = broker.enroll(&neighbour.netns(), &rows(plaintext::ASK)).await;
    let enrolled = enrolled.expect("whatever another pod has done");
    is_captured(&neighbour, &enrolled);
    assert_eq!(rows_of(&table, enrolled.id), apps.len(), "there was room to make");
    assert!(rows_of(&table, greedy) < 100);
    // And so it is made from time to time, for what the programs count.
    everywhere();
    assert!(rows_of(&table, greedy) > MAX_POD_ROWS - 100);
    let refused = open(&neighbour, 8_020..8_120);
    assert!(count(&broker, "listening_full") > 0);
    broker.make_room();
    assert!(rows_of(&table, greedy) < 100);
    let known = rows_of(&table, enrolled.id);
    assert_eq!(known, apps.len() + refused.len(), "also those that had no row");
    // They are followed from here on.
    drop(refused);
    assert!(broker.follow_seeds(enrolled.id).expect("look"));
    drop(apps);
    assert!(!broker.follow_seeds(enrolled.id).expect("look"));
}

#[tokio::test]
async fn without_room_in_the_table_a_pod_is_captured_all_the_same() {
    let pod = Pod::new("ub");
    let neighbour = pod.neighbour();
    let broker = Broker::start(&pod.settings()).expect("broker");
    let mut table = table(&pod);
    // Somebody listens there: there is nothing to remove.
    let somebody = 1 << 40;
    let filling = (0..=u16::MAX).map(|port| PodPort::new(somebody, port, direction::INBOUND));
    let filled = filling.take_while(|key| table.insert(key, 1, 0).is_ok());
    assert!(filled.count() >= MAX_POD_ROWS - 1);
    let apps = open(&neighbour, 8_000..8_020);
    let enrolled = broker.enroll(&neighbour.netns(), &rows(plaintext::ASK)).await;
    let enrolled = enrolled.expect("its ports look closed, and that is all");
    is_captured(&neighbour, &enrolled);
    assert!(count(&broker, "listening_full") > 0);
    assert!(rows_of(&table, enrolled.id) < apps.len());
    for port in 0..100 {
        let key = PodPort::new(somebody, port, direction::INBOUND);
        table.remove(&key).expect("a row");
    }
    assert!(broker.follow_seeds(enrolled.id).expect("look"));
    assert_eq!(rows_of(&table, enrolled.id), apps.len());
}

#[tokio::test]
async fn what_came_in_where_nobody_listens_any_more_is_known_when_room_was_made() {
    let pod = Pod::new("uc");
    pod.reach_from_node();
    let broker = Broker::start(&pod.settings()).expect("broker");
    let enrolled = broker.enroll(&pod.netns(), &rows(plaintext::PASS)).await;
    let id = enrolled.as_ref().map(|enrolled| enrolled.id);
    let id = id.unwrap_or_else(|error| panic!("{error}"));
    let (client, _accepted) = {
        let app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
        let client = TcpStream::connect_timeout(&at(80), SOON).expect("let in");
        (client, app.accept().expect("accept"))
    };
    pod.inside(|| (1_000..2_000).for_each(|port| drop(TcpListener::bind(("0.0.0.0", port)))));
    let _stays = pod.inside(|| TcpListener::bind("0.0.0.0:1500").expect("bind"));
    let table = table(&pod);
    assert!(rows_of(&table, id) > 1_000);
    broker.make_room();
    assert_eq!(rows_of(&table, id), 2);
    let found = broker.unvouched(id).expect("list");
    let remotes: Vec<_> = found.iter().map(|socket| socket.remote).collect();
    assert_eq!(remotes, [client.local_addr().expect("address")]);
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(V4.parse().expect("an address"), port)
}

fn listen_together(pod: &Pod) -> Socket {
    pod.inside(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        setsockopt(&socket, sockopt::ReusePort, &true).expect("option");
        let any = SocketAddr::new([0, 0, 0, 0].into(), 80);
        socket.bind(&any.into()).expect("bind");
        socket.listen(16).expect("listen");
        socket
    })
}

#[tokio::test]
async fn who_listens_last_is_heard_whatever_was_counted_before() {
    let pod = Pod::new("ud");
    pod.reach_from_node();
    let broker = Broker::start(&pod.settings()).expect("broker");
    let (netns, asked) = (pod.netns(), rows(plaintext::ASK));
    let enroll = || broker.enroll(&netns, &asked);
    let id = enroll().await.expect("enroll").id;
    let first = listen_together(&pod);
    // The end of the first will be taken off a count that it never entered.
    broker.withdraw(id).expect("withdraw");
    let _enrolled = enroll().await.expect("enroll again");
    let second = listen_together(&pod);
    drop(first);
    drop(second);
    broker.follow_seeds(id).expect("look");
    TcpStream::connect_timeout(&at(80), SOON).expect_err("nobody listens");
    let _third = listen_together(&pod);
    TcpStream::connect_timeout(&at(80), SOON).expect("somebody listens, the agent is asked");
}
