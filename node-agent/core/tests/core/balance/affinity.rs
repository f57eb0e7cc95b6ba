//! `sessionAffinity`, and what is like it.

use super::*;

fn sticky(timeout: u64) -> impl FnOnce(&mut ServiceObject) {
    move |web| web.session_affinity = Some(Duration::from_secs(timeout))
}

#[test]
fn a_pinned_client_stays_while_its_endpoint_is_ready_and_the_time_is_not_over() {
    let rows: &[Row] = &[
        ("192.0.2.1", Ready, "n2", "", &[], &[]),
        ("192.0.2.2", Ready, "n1", "", &[], &[]),
        ("192.0.2.3", Ready, "n1", "", &[], &[]),
    ];
    let mesh = build(objects(rows, |web| {
        sticky(60)(web);
        web.distribution = Distribution::SameNode;
    }));
    let web = mesh.services().next().unwrap();
    let mut known = Known::default();
    // Busy, far and just failed: all of that only says which endpoint is better, and the client's is its own.
    let pinned = at("192.0.2.1");
    known.loads.insert(pinned, 1000);
    known.avoided.insert(pinned);
    let seconds = Duration::from_secs;
    known.pins.set(ip(CLIENT), web, 80, pinned, seconds(100));
    known.now = seconds(159);
    assert_eq!(reachable(&mesh, &known, &[]), set(&["192.0.2.1"]));
    assert_eq!(
        known.pins.get(ip("10.0.0.8"), web, 80, known.now),
        None,
        "another client"
    );
    assert_eq!(
        known.pins.get(ip(CLIENT), web, 81, known.now),
        None,
        "another port"
    );
    assert_ne!(dial(&mesh, &known, [0, 0], &[pinned]), Ok(pinned), "it was tried");
    known.now = seconds(160);
    assert!(!reachable(&mesh, &known, &[]).contains("192.0.2.1"));
    // Each connection puts the end off.
    known.pins.set(ip(CLIENT), web, 80, pinned, seconds(159));
    assert_eq!(reachable(&mesh, &known, &[]), set(&["192.0.2.1"]));

    // New endpoints take nobody away, and one that is not ready keeps nobody.
    let mut more = rows.to_vec();
    more.push(("192.0.2.4", Ready, "n1", "", &[], &[]));
    assert_eq!(
        reachable(&build(objects(&more, sticky(60))), &known, &[]),
        set(&["192.0.2.1"])
    );
    more[0].1 = Draining;
    let mesh = build(objects(&more, sticky(60)));
    assert!(!reachable(&mesh, &known, &[]).contains("192.0.2.1"));
    // Without affinity nobody is pinned.
    assert_eq!(reachable(&build(objects(rows, |_| ())), &known, &[]).len(), 2);
}

#[test]
fn clients_without_a_pin_are_spread_by_a_hash_that_moves_only_those_it_has_to() {
    const CLIENTS: usize = 400;
    let rows: Vec<Row> = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]
        .map(|address| (address, Ready, "", "", &[][..], &[][..]))
        .to_vec();
    let place = |rows: &[Row]| -> Vec<SocketAddr> {
        let mesh = build(objects(rows, sticky(60)));
        let source = workload(&mesh, "demo/client");
        (0..CLIENTS)
            .map(|client| {
                let dialled = Dialled {
                    source,
                    client: IpAddr::from([10, 1, (client >> 8) as u8, client as u8]),
                    destination: SocketAddr::new(ip(VIP), 80),
                    draws: [client as u64, 7],
                    tried: &[],
                    picked: None,
                };
                outbound(&mesh, &dialled, &Alike).unwrap().target.address()
            })
            .collect()
    };
    let before = place(&rows);
    assert_eq!(before, place(&rows));
    for row in &rows {
        let share = before.iter().filter(|address| **address == at(row.0)).count();
        assert!((60..=140).contains(&share), "{share} of {CLIENTS} at {}", row.0);
    }
    let after = place(&rows[1..]);
    for (before, after) in before.iter().zip(after) {
        assert!(*before == after || *before == at(rows[0].0));
    }
}
