//! Which maps are pinned, and what becomes of each where an agent takes a node over from one of another version.
//!
//! Two kinds of agreement: the **contract** ([`CONTRACT_VERSION`]) is what programs of different versions share while both
//! run, and what nobody could write again: socket storages, and the tables that programs write by the life of sockets. All
//! other maps have a **layout** each, by number: an agent that finds another one makes a map of its own beside it, fills it,
//! and only then replaces the programs. docs/ARCHITECTURE.md, "Upgrades".

use crate::{
    Address, PodId,
    counter::COUNTERS,
    map::{
        EVENT_RING_BYTES, Flow, FlowKey, ListenerKey, MAX_LISTENERS, MAX_POD_ROWS, MAX_PODS, MAX_REGISTRY,
        Owned, Pod, PodAddress, PodPort, RangeData, name,
    },
    service::{Endpoint, EndpointKey, Load, MAX_ENDPOINTS, MAX_LOADS, MAX_SERVICES, ServiceRow},
    verdict::{MAX_PASSED, MAX_VERDICTS, PASSAGE_RING_BYTES, Passed, Picked, Verdict, VerdictKey},
};

/// The version of the contract: the layouts of the [`Kind::Shared`] maps, and the constants of `lib.rs` (marks, table,
/// priority of the rule) that agents leave in pods' namespaces.
///
/// It names the directory of the pins. Agents of two contracts cannot follow each other on a node without its pods being
/// let go in between, and say so; so what is new goes into a map of its own, and this number stays.
pub const CONTRACT_VERSION: u32 = 2;

/// The build for tests of upgrades has other layouts of everything that may have.
const NEXT: u32 = cfg!(feature = "next-layout") as u32;

/// What becomes of a map when an agent of another version takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of the contract: every version's programs use the one that is there.
    Shared,
    /// Written by the agent. One of another layout is left to the programs that read it, and a new one filled before the
    /// node's programs are replaced: without its rows pods would not be captured, or more of them than should be.
    Filled(u32),
    /// May begin empty, since nothing in it means: the agent decides.
    Fresh(u32),
}

/// A map that is pinned, so that it outlives the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// As the object and the kernel name it.
    pub name: &'static str,
    /// What becomes of it.
    pub kind: Kind,
    /// What it looks like.
    pub shape: Shape,
}

/// What the kernel knows of a map's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
    /// Entries at most; zero where there is no such bound.
    pub entries: usize,
}

impl Pinned {
    /// The layout by number; what is shared has the first one.
    pub const fn layout(&self) -> u32 {
        match self.kind {
            Kind::Shared => 1,
            Kind::Filled(layout) | Kind::Fresh(layout) => layout,
        }
    }

    const fn new<K, V>(name: &'static str, kind: Kind, entries: usize) -> Self {
        Self {
            name,
            kind,
            shape: Shape {
                key: size_of::<K>(),
                value: size_of::<V>(),
                entries,
            },
        }
    }
}

const fn filled(layout: u32) -> Kind {
    Kind::Filled(layout + NEXT)
}

const fn fresh(layout: u32) -> Kind {
    Kind::Fresh(layout + NEXT)
}

/// A descriptor, by which user space names a socket.
type Socket = u32;
/// The data of a longest-prefix key follow the length.
type Range = [u8; 4 + size_of::<RangeData>()];

/// Every map that is pinned. A changed key or value needs another number in its row here; `layout_tests` fails without.
pub const PINNED: [Pinned; 21] = [
    Pinned::new::<PodId, Pod>(name::PODS, filled(1), MAX_PODS),
    Pinned::new::<PodAddress, u32>(name::POD_ADDRESSES, filled(1), MAX_POD_ROWS),
    Pinned::new::<Address, PodId>(name::LOCAL_PODS, filled(1), MAX_POD_ROWS),
    Pinned::new::<PodPort, u32>(name::EXCLUDED_PORTS, filled(1), MAX_POD_ROWS),
    Pinned::new::<Range, u64>(name::EXCLUDED_RANGES, filled(1), MAX_POD_ROWS),
    Pinned::new::<ListenerKey, Socket>(name::LISTENERS, filled(1), MAX_LISTENERS),
    Pinned::new::<PodPort, u32>(name::PLAINTEXT, filled(1), MAX_POD_ROWS),
    Pinned::new::<PodPort, u64>(name::LISTENING, Kind::Shared, MAX_POD_ROWS),
    Pinned::new::<FlowKey, Flow>(name::REGISTRY, Kind::Shared, MAX_REGISTRY),
    Pinned::new::<Socket, Owned>(name::OWNED, Kind::Shared, 0),
    Pinned::new::<(), ()>(name::EVENTS, fresh(1), EVENT_RING_BYTES),
    Pinned::new::<u32, u64>(name::COUNTERS, fresh(1), COUNTERS),
    Pinned::new::<PodId, u64>(name::VERSIONS, fresh(1), MAX_PODS),
    Pinned::new::<VerdictKey, Verdict>(name::VERDICTS, fresh(1), MAX_VERDICTS),
    Pinned::new::<FlowKey, Passed>(name::DIRECT, Kind::Shared, MAX_PASSED),
    Pinned::new::<FlowKey, Passed>(name::OUTSIDE, Kind::Shared, MAX_PASSED),
    Pinned::new::<Socket, Picked>(name::PICKED, Kind::Shared, 0),
    Pinned::new::<(), ()>(name::PASSAGES, fresh(1), PASSAGE_RING_BYTES),
    Pinned::new::<VerdictKey, ServiceRow>(name::SERVICES, fresh(1), MAX_SERVICES),
    Pinned::new::<EndpointKey, Endpoint>(name::ENDPOINTS, fresh(1), MAX_ENDPOINTS),
    Pinned::new::<u32, Load>(name::LOADS, Kind::Shared, MAX_LOADS),
];
