//! What a change of one pod's rows costs on a node with many pods.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use std::time::{Duration, Instant};
use tramline_common::map::plaintext;
use tramline_kernel_tests::Pod;
use tramline_node_agent::broker::{Broker, PodRows};

const PODS: u64 = 500;
const ROWS: u16 = 20;
const CHANGES: u16 = 50;

/// Many rows of each kind, one plaintext row telling.
fn rows(telling: u16) -> PodRows {
    let ports = 1..=ROWS;
    PodRows {
        plaintext_default: plaintext::DROP,
        plaintext: ports
            .clone()
            .map(|port| (port, plaintext::PASS))
            .chain([(1000 + telling, plaintext::ASK)])
            .collect(),
        excluded_outbound_ports: ports.clone().collect(),
        excluded_inbound_ports: ports.clone().collect(),
        excluded_outbound_ranges: ports
            .map(|number| format!("10.{number}.0.0/16").parse().expect("a range"))
            .collect(),
    }
}

/// The quickest of many: what else the machine does is not counted.
fn quickest(times: u16, mut change: impl FnMut(u16)) -> Duration {
    let one = |number| {
        let begun = Instant::now();
        change(number);
        begun.elapsed()
    };
    (1..=times).map(one).min().expect("some")
}

#[test]
fn a_change_costs_what_differs_however_many_pods_there_are() {
    let pod = Pod::new("r");
    let broker = Broker::start(&pod.settings()).expect("broker");
    // No such namespaces: the maps do not ask.
    let own = PODS + 1;
    let fill = |map: &str| {
        let fill = broker.fill().into_iter().find(|fill| fill.map == map);
        fill.expect(map).entries
    };
    let measure = || {
        broker.update(own, &rows(0)).expect("rows");
        let written = fill("PLAINTEXT");
        let by_difference = quickest(CHANGES, |number| {
            let (before, after) = (rows(number - 1), rows(number));
            broker.change(own, &before, &after).expect("rows");
        });
        assert_eq!(fill("PLAINTEXT"), written, "as many rows as before");
        let by_walk = quickest(5, |number| {
            broker.update(own, &rows(CHANGES + number)).expect("rows")
        });
        assert_eq!(fill("PLAINTEXT"), written, "as many rows as before");
        (by_difference, by_walk)
    };
    let alone = measure();
    for other in 1..=PODS {
        broker.change(other, &PodRows::default(), &rows(0)).expect("rows");
    }
    let among_many = measure();
    println!(
        "a change by difference and by a walk: alone {alone:?}, with the rows of {PODS} pods {among_many:?}"
    );
    assert!(
        among_many.0 < alone.0 * 10,
        "{alone:?} alone, {among_many:?} with the rows of {PODS} pods"
    );
}

#[test]
fn what_cannot_be_written_is_taken_away_whole() {
    let pod = Pod::new("away");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let kinds = ["PLAINTEXT", "EXCLUDED_PORTS", "EXCLUDED_RANGES"];
    let fill = || {
        let all = broker.fill().into_iter();
        let ours = all.filter(|fill| kinds.contains(&fill.map));
        ours.map(|fill| fill.entries).collect::<Vec<_>>()
    };
    broker.update(1, &rows(0)).expect("rows");
    assert!(
        fill().len() == 3 && fill().iter().all(|entries| *entries > 0),
        "{:?}",
        fill()
    );
    broker.refuse_plaintext(1).expect("closed");
    assert_eq!(fill(), [0, 0, 0]);
}
