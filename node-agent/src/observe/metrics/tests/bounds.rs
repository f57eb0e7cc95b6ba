//! What a flood of distinct peers costs, and how long a label set stays.

use std::time::{Duration, Instant};

use super::super::process::Process;
use super::*;
use crate::observe::test_support::identity;

fn peer(name: &str) -> ConnectionInfo {
    let mut info = connection(Reporter::Destination);
    info.source = None;
    info.source_identity = Some(identity(name));
    info
}

fn carry(observer: &Arc<Observer>, info: ConnectionInfo) {
    let open = observer.open(info);
    open.established();
    open.counters().add_to_source(5);
    open.finish(Reason::Ok);
}

/// In this process other tests may run at the same time, which the bound leaves room for.
const MAX_GROWTH: f64 = (96 << 20) as f64;

/// The table alone, for the sake of the test's time; connections of many peers are in the next test.
#[test]
fn a_million_distinct_label_sets_cost_no_more_than_the_bound() {
    const PEERS: u64 = 1_000_000;
    let table = series::Table::new(MAX_LABEL_SETS, IDLE_LABEL_SET);
    let info = connection(Reporter::Destination);
    let labels = TcpLabels::of(&info, [labels::UNKNOWN, labels::UNKNOWN]);
    let principal = labels::TCP_LABELS
        .iter()
        .position(|name| *name == "source_principal");
    let principal = principal.unwrap();
    let count = |name: String| {
        let mut labels = labels.clone();
        labels.0[principal] = labels::Label::Shared(name.into());
        let series = table.series(Reporter::Destination, labels);
        series.opened.fetch_add(1, Ordering::Relaxed);
        series
    };
    let hot = count("hot".into());
    let before = Process::read().resident_bytes.unwrap();
    for index in 0..PEERS {
        count(format!("spiffe://cluster.local/ns/default/sa/p{index}"));
        if index % 1000 == 0 {
            count("hot".into());
        }
    }
    let grown = Process::read().resident_bytes.unwrap() - before;
    assert!(grown < MAX_GROWTH, "{grown} bytes");
    assert_eq!(table.len(), MAX_LABEL_SETS);
    assert_eq!(
        hot.opened.load(Ordering::Relaxed),
        1 + PEERS / 1000,
        "the hot one keeps its own"
    );
    assert_eq!(table.overflowed(), PEERS - (MAX_LABEL_SETS as u64 - 1));
}

#[test]
fn a_flood_of_peers_loses_no_count_and_leaves_scrapes_fast() {
    const PEERS: u32 = 40_000;
    let observer = observer(MetricsSettings::default());
    carry(&observer, peer("hot"));
    for index in 0..PEERS {
        carry(&observer, peer(&format!("p{index}")));
    }
    carry(&observer, peer("hot"));
    let began = Instant::now();
    let text = observer.render();
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "a scrape took {took:?}");
    let opened = "istio_tcp_connections_opened_total";
    assert_eq!(lines(&text, opened).len(), MAX_LABEL_SETS + 1);
    let all = f64::from(PEERS) + 2.0;
    assert_eq!(sum(&text, opened, ""), all, "none is lost");
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), all);
    assert_eq!(sum(&text, "istio_tcp_sent_bytes_total", ""), 5.0 * all);
    assert_eq!(sum(&text, opened, "/sa/hot\""), 2.0);
    let folded = sum(&text, opened, "source_principal=\"other\"");
    assert_eq!(
        sum(&text, "tramline_metric_label_sets_overflowed_total", ""),
        folded
    );
    let kept = u32::try_from(MAX_LABEL_SETS - 1).unwrap();
    assert_eq!(folded, f64::from(PEERS - kept));
}

#[test]
fn a_peer_that_says_many_clusters_takes_no_room_from_others() {
    let observer = observer(MetricsSettings::default());
    let of = |cluster: &str| {
        let mut info = peer("p");
        info.claimed_cluster = Some(cluster.parse().unwrap());
        info
    };
    for index in 0..10_000 {
        carry(&observer, of(&format!("c{index}")));
    }
    let text = observer.render();
    let opened = "istio_tcp_connections_opened_total";
    assert_eq!(lines(&text, opened).len(), foreign_clusters::MOST + 1);
    assert_eq!(sum(&text, opened, ""), 10_000.0);
    assert_eq!(sum(&text, opened, "source_cluster=\"c0\""), 1.0);
    let others = 10_000.0 - f64::from(u32::try_from(foreign_clusters::MOST).unwrap());
    assert_eq!(sum(&text, opened, "source_cluster=\"other\""), others);
    assert_eq!(sum(&text, "tramline_metric_label_sets_overflowed_total", ""), 0.0);
    // Both ends of one connection are counted under one name, and the agent's own always has its own.
    assert_eq!(
        sum(
            &text,
            "istio_tcp_connections_closed_total",
            "source_cluster=\"other\""
        ),
        others
    );
    carry(&observer, of("Kubernetes"));
    assert_eq!(
        sum(&observer.render(), opened, "source_cluster=\"Kubernetes\""),
        1.0
    );
}

#[test]
fn a_label_set_expires_though_there_is_room_and_not_while_a_connection_has_it() {
    let idle_label_set = Duration::from_millis(200);
    let observer = observer(MetricsSettings {
        idle_label_set,
        ..MetricsSettings::default()
    });
    let held = observer.open(peer("held"));
    held.established();
    carry(&observer, peer("gone"));
    let opened = "istio_tcp_connections_opened_total";
    assert_eq!(lines(&observer.render(), opened).len(), 2);
    std::thread::sleep(2 * idle_label_set);
    let text = observer.render();
    assert_eq!(lines(&text, opened).len(), 1, "{text}");
    assert_eq!(sum(&text, opened, "/sa/held\""), 1.0);
    assert_eq!(sum(&text, "tramline_metric_label_sets_expired_total", ""), 1.0);
    // Its last bytes must be seen by a scrape: it is idle from its end, not from its beginning.
    held.counters().add_to_source(7);
    held.finish(Reason::Ok);
    let text = observer.render();
    assert_eq!(sum(&text, "istio_tcp_sent_bytes_total", "/sa/held\""), 7.0);
    std::thread::sleep(2 * idle_label_set);
    let text = observer.render();
    assert_eq!(lines(&text, opened), Vec::<&str>::new());
    assert_eq!(sum(&text, "tramline_metric_label_sets_expired_total", ""), 2.0);
}
