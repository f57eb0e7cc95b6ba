//! Layouts are agreements with maps that other versions of the agent made: the contract, which stays, and the numbered
//! layouts of `layout::PINNED`.

use crate::{
    CAPTURE_MARK, CAPTURE_MASK, CAPTURE_RULE_PRIORITY, CAPTURE_TABLE, HBONE_PORT,
    event::Event,
    layout::{CONTRACT_VERSION, Kind, PINNED},
    map::{Flow, FlowKey, ListenerKey, Owned, PodAddress, PodPort, RangeData, owned},
    service::Load,
    verdict::{Passed, Picked, ServiceAt, Verdict, kind},
};
use std::{
    collections::BTreeSet,
    mem::{offset_of, size_of},
};

/// Programs of one contract read and write these while those of another version are replaced. Nothing in here changes:
/// what is new goes into a map of its own. A contract of another number cannot be upgraded to.
#[test]
fn contract_two() {
    assert_eq!(CONTRACT_VERSION, 2);
    assert_eq!(
        (
            CAPTURE_MARK,
            CAPTURE_MASK,
            CAPTURE_TABLE,
            CAPTURE_RULE_PRIORITY,
            HBONE_PORT
        ),
        (0x7472_6000, 0xffff_f000, 0x7472, 15_008, 15_008)
    );
    let shared = PINNED.iter().filter(|map| map.kind == Kind::Shared);
    assert_eq!(
        shared.map(|map| map.name).collect::<Vec<_>>(),
        [
            "LISTENING",
            "REGISTRY",
            "OWNED",
            "DIRECT",
            "OUTSIDE",
            "PICKED",
            "LOADS"
        ]
    );
    assert_eq!(
        (
            size_of::<PodPort>(),
            offset_of!(PodPort, port),
            offset_of!(PodPort, direction)
        ),
        (16, 8, 10)
    );
    assert_eq!(
        (
            size_of::<FlowKey>(),
            offset_of!(FlowKey, remote),
            offset_of!(FlowKey, local),
            offset_of!(FlowKey, remote_port),
            offset_of!(FlowKey, local_port)
        ),
        (48, 8, 24, 40, 42)
    );
    assert_eq!(
        (
            size_of::<Flow>(),
            offset_of!(Flow, socket),
            offset_of!(Flow, role)
        ),
        (16, 0, 8)
    );
    assert_eq!(
        (
            size_of::<Owned>(),
            offset_of!(Owned, pod),
            offset_of!(Owned, role)
        ),
        (16, 0, 8)
    );
    assert_eq!(
        (owned::DELIVERY, owned::EGRESS, owned::LISTENER, owned::PROBE),
        (1, 2, 3, 4)
    );
    assert_eq!(
        (
            size_of::<Passed>(),
            offset_of!(Passed, source),
            offset_of!(Passed, source_version),
            offset_of!(Passed, destination_version),
            offset_of!(Passed, service)
        ),
        (56, 8, 16, 24, 32)
    );
    assert_eq!(
        (
            size_of::<Picked>(),
            offset_of!(Picked, verdict),
            offset_of!(Picked, service),
            offset_of!(Picked, began_ns),
            offset_of!(Picked, received)
        ),
        (72, 0, 32, 56, 64)
    );
    assert_eq!(
        (
            offset_of!(Verdict, destination),
            offset_of!(Verdict, source_version),
            offset_of!(Verdict, destination_version),
            offset_of!(Verdict, kind),
            offset_of!(Verdict, load)
        ),
        (0, 8, 16, 24, 28)
    );
    assert_eq!((size_of::<ServiceAt>(), offset_of!(ServiceAt, port)), (24, 16));
    assert_eq!(
        (
            size_of::<Load>(),
            offset_of!(Load, port),
            offset_of!(Load, kernel),
            offset_of!(Load, agent)
        ),
        (40, 16, 24, 32)
    );
    assert_eq!(
        (kind::NONE, kind::DIRECT, kind::OUTSIDE, kind::DENY),
        (0, 1, 2, 3)
    );
}

/// Name, layout, bytes of key and value. Whoever changes a line raises its number; the numbers that were are never used again.
#[test]
fn numbered_layouts() {
    let numbered = PINNED.iter().filter(|map| map.kind != Kind::Shared);
    let rows: Vec<_> = numbered
        .map(|map| (map.name, map.layout(), map.shape.key, map.shape.value))
        .collect();
    assert_eq!(
        rows,
        [
            ("PODS", 1, 8, 8),
            ("POD_ADDRESSES", 1, 24, 4),
            ("LOCAL_PODS", 1, 16, 8),
            ("EXCLUDED_PORTS", 1, 16, 4),
            ("EXCLUDED_RANGES", 1, 28, 8),
            ("LISTENERS", 1, 16, 4),
            ("PLAINTEXT", 1, 16, 4),
            ("EVENTS", 1, 0, 0),
            ("COUNTERS", 1, 4, 8),
            ("VERSIONS", 1, 8, 8),
            ("VERDICTS", 1, 32, 32),
            ("PASSAGES", 1, 0, 0),
            ("SERVICES", 1, 32, 24),
            ("ENDPOINTS", 1, 16, 56),
        ]
    );
    // What the sizes do not show.
    assert_eq!(offset_of!(PodAddress, address), 8);
    assert_eq!(offset_of!(RangeData, address), 8);
    assert_eq!(
        (offset_of!(ListenerKey, role), offset_of!(ListenerKey, family)),
        (8, 12)
    );
    assert_eq!(
        (
            size_of::<Event>(),
            offset_of!(Event, kind),
            offset_of!(Event, local_port)
        ),
        (56, 48, 54)
    );
}

/// The kernel cuts names off after fifteen bytes, and the names of pins may have no dots.
#[test]
fn every_name_is_whole_and_used_once() {
    let names: BTreeSet<_> = PINNED.iter().map(|map| map.name).collect();
    assert_eq!(names.len(), PINNED.len());
    for name in names {
        assert!(name.len() <= 15 && !name.contains(['.', '-']), "{name}");
    }
}

#[test]
fn no_struct_has_padding() {
    // The sum of the fields is the size.
    assert_eq!(size_of::<PodAddress>(), 8 + 16);
    assert_eq!(size_of::<PodPort>(), 8 + 2 + 2 + 4);
    assert_eq!(size_of::<RangeData>(), 8 + 16);
    assert_eq!(size_of::<ListenerKey>(), 8 + 4 + 4);
    assert_eq!(size_of::<FlowKey>(), 8 + 16 + 16 + 2 + 2 + 4);
    assert_eq!(size_of::<Flow>(), 8 + 4 + 4);
    assert_eq!(size_of::<Owned>(), 8 + 4 + 4);
    assert_eq!(size_of::<Event>(), 8 + 8 + 16 + 16 + 4 + 2 + 2);
}

#[test]
fn an_event_survives_the_ring_buffer() {
    let event = Event {
        pod: 7,
        at_ns: 9,
        remote: crate::Address::v4([10, 0, 0, 9]),
        local: crate::Address { octets: [3; 16] },
        kind: crate::event::kind::NO_LISTENER,
        remote_port: 40_000,
        local_port: 80,
    };
    let mut bytes = Vec::new();
    bytes.extend(event.pod.to_ne_bytes());
    bytes.extend(event.at_ns.to_ne_bytes());
    bytes.extend(event.remote.octets);
    bytes.extend(event.local.octets);
    bytes.extend(event.kind.to_ne_bytes());
    bytes.extend(event.remote_port.to_ne_bytes());
    bytes.extend(event.local_port.to_ne_bytes());
    assert_eq!(Event::from_bytes(&bytes), Some(event));
    assert_eq!(Event::from_bytes(&bytes[1..]), None);
}
