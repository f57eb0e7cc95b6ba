//! The layout is a contract with pinned maps: a change here needs a new `LAYOUT_VERSION`.

use crate::{
    LAYOUT_VERSION,
    event::Event,
    map::{Flow, FlowKey, ListenerKey, Owned, Pod, PodAddress, PodPort, RangeData},
};
use std::mem::{offset_of, size_of};

#[test]
fn layout_one() {
    assert_eq!(
        LAYOUT_VERSION, 1,
        "describe the new layout in a new test, beside this one's numbers"
    );
    assert_eq!(size_of::<Pod>(), 8);
    assert_eq!(
        (size_of::<PodAddress>(), offset_of!(PodAddress, address)),
        (24, 8)
    );
    assert_eq!(
        (
            size_of::<PodPort>(),
            offset_of!(PodPort, port),
            offset_of!(PodPort, direction)
        ),
        (16, 8, 10)
    );
    assert_eq!((size_of::<RangeData>(), offset_of!(RangeData, address)), (24, 8));
    assert_eq!(
        (
            size_of::<ListenerKey>(),
            offset_of!(ListenerKey, role),
            offset_of!(ListenerKey, family)
        ),
        (16, 8, 12)
    );
    assert_eq!(
        (
            size_of::<FlowKey>(),
            offset_of!(FlowKey, local),
            offset_of!(FlowKey, remote_port)
        ),
        (48, 24, 40)
    );
    assert_eq!((size_of::<Flow>(), offset_of!(Flow, role)), (16, 8));
    assert_eq!((size_of::<Owned>(), offset_of!(Owned, role)), (16, 8));
    assert_eq!(
        (
            size_of::<Event>(),
            offset_of!(Event, kind),
            offset_of!(Event, local_port)
        ),
        (56, 48, 54)
    );
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
