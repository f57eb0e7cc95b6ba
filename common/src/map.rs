//! Keys, values, names and capacities of the maps.

use crate::{Address, PodId};

/// Enrolled pods on one node, at most. EKS allows up to 737 pods on a node.
pub const MAX_PODS: usize = 1024;
/// Addresses, exclusions and plaintext rows of all pods together.
pub const MAX_POD_ROWS: usize = 65_536;
/// Live connections that the agent delivers to applications on this node.
pub const MAX_REGISTRY: usize = 262_144;
/// Listeners of the agent: three kinds in two families for each pod.
pub const MAX_LISTENERS: usize = MAX_PODS * 6;
/// Bytes of the event ring buffer; a power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: usize = 512 * 1024;

/// Names of the maps, as user space finds and pins them.
pub mod name {
    /// Cookie of an enrolled pod's namespace → [`super::Pod`].
    pub const PODS: &str = "PODS";
    /// [`super::PodAddress`] → 1.
    pub const POD_ADDRESSES: &str = "POD_ADDRESSES";
    /// [`crate::Address`] of a pod on this node → the pod.
    pub const LOCAL_PODS: &str = "LOCAL_PODS";
    /// [`super::PodPort`] → 1: ports never captured.
    pub const EXCLUDED_PORTS: &str = "EXCLUDED_PORTS";
    /// [`super::RangeData`] with a prefix length → 1: destinations never captured.
    pub const EXCLUDED_RANGES: &str = "EXCLUDED_RANGES";
    /// [`super::ListenerKey`] → the agent's listening socket.
    pub const LISTENERS: &str = "LISTENERS";
    /// [`super::PodPort`] → [`super::plaintext`]; port 0 is the pod's default.
    pub const PLAINTEXT: &str = "PLAINTEXT";
    /// [`super::PodPort`] → how many sockets of the pod listen there (u64).
    pub const LISTENING: &str = "LISTENING";
    /// [`super::FlowKey`] → [`super::Flow`].
    pub const REGISTRY: &str = "REGISTRY";
    /// Socket storage: [`super::Owned`].
    pub const OWNED: &str = "OWNED";
    /// Ring buffer of [`crate::event::Event`].
    pub const EVENTS: &str = "EVENTS";
    /// Per-CPU array by [`crate::counter::Counter`].
    pub const COUNTERS: &str = "COUNTERS";

    /// Cookie of an enrolled pod's namespace → version (u64) that its verdicts need.
    pub const VERSIONS: &str = "VERSIONS";
    /// [`crate::verdict::VerdictKey`] → [`crate::verdict::Verdict`].
    pub const VERDICTS: &str = "VERDICTS";
    /// [`super::FlowKey`] of a connection between two pods of this node → [`crate::verdict::Passed`].
    pub const DIRECT: &str = "DIRECT";
    /// [`super::FlowKey`] of a connection out of the mesh, seen from the pod that dialled → [`crate::verdict::Passed`].
    pub const OUTSIDE: &str = "OUTSIDE";
    /// Socket storage: [`crate::verdict::Picked`].
    pub const PICKED: &str = "PICKED";
    /// Ring buffer of [`crate::verdict::Passage`].
    pub const PASSAGES: &str = "PASSAGES";

    /// [`crate::verdict::VerdictKey`] → [`crate::service::ServiceRow`].
    pub const SERVICES: &str = "SERVICES";
    /// [`crate::service::EndpointKey`] → [`crate::service::Endpoint`].
    pub const ENDPOINTS: &str = "ENDPOINTS";
    /// Array of [`crate::service::Load`], shared with the agent's memory.
    pub const LOADS: &str = "LOADS";
}

/// What the kernel knows of an enrolled pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pod {
    /// Only there to make another layout.
    #[cfg(feature = "next-layout")]
    pub next: u64,
    /// Rises with each enrolment on this node: tells two pods apart that had the same address.
    pub generation: u64,
}

impl Pod {
    /// What is written at an enrolment.
    pub const fn new(generation: u64) -> Self {
        Self {
            #[cfg(feature = "next-layout")]
            next: u64::MAX,
            generation,
        }
    }
}

/// An address a pod's namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PodAddress {
    /// Only there to make another layout.
    #[cfg(feature = "next-layout")]
    pub next: u64,
    /// The pod.
    pub pod: PodId,
    /// One of its addresses.
    pub address: Address,
}

impl PodAddress {
    /// The key of `address` of `pod`.
    #[inline(always)]
    pub const fn new(pod: PodId, address: Address) -> Self {
        Self {
            #[cfg(feature = "next-layout")]
            next: u64::MAX,
            pod,
            address,
        }
    }
}

/// A port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PodPort {
    /// The pod.
    pub pod: PodId,
    /// Host byte order.
    pub port: u16,
    /// One of [`direction`].
    pub direction: u16,
    /// Zero.
    pub reserved: u32,
}

impl PodPort {
    /// The key of `port` of `pod` in `direction`.
    #[inline(always)]
    pub const fn new(pod: PodId, port: u16, direction: u16) -> Self {
        Self {
            pod,
            port,
            direction,
            reserved: 0,
        }
    }
}

/// Which way a connection goes, seen from the pod.
pub mod direction {
    /// Opened by the pod.
    pub const OUTBOUND: u16 = 1;
    /// Towards the pod.
    pub const INBOUND: u16 = 2;
    /// In `LISTENING` alone: towards a socket that listened before the programs watched the pod.
    pub const SEEDED: u16 = 3;
}

/// The data of a longest-prefix key: the pod's bytes are always part of the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, packed)]
pub struct RangeData {
    /// The pod, as bytes: a prefix is matched from the first byte on.
    pub pod: [u8; 8],
    /// The network address.
    pub address: Address,
}

impl RangeData {
    /// Prefix length that `bits` of an IPv6 (or mapped IPv4) network take in this key.
    pub const fn prefix_len(bits: u8) -> u32 {
        64 + bits as u32
    }

    /// The key of one address.
    #[inline(always)]
    pub const fn new(pod: PodId, address: Address) -> Self {
        Self {
            pod: pod.to_ne_bytes(),
            address,
        }
    }
}

/// One of the agent's listening sockets in a pod's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ListenerKey {
    /// The pod.
    pub pod: PodId,
    /// One of [`listener`].
    pub role: u32,
    /// `AF_INET` (2) or `AF_INET6` (10): a v6 socket on a specific address takes no IPv4.
    pub family: u32,
}

/// What a listening socket of the agent takes.
pub mod listener {
    /// The build for tests of upgrades has other numbers.
    const NEXT: u32 = if cfg!(feature = "next-layout") { 16 } else { 0 };
    /// Connections the pod opened.
    pub const OUTBOUND: u32 = 1 + NEXT;
    /// Tunnels from other nodes, port 15008.
    pub const HBONE: u32 = 2 + NEXT;
    /// Plaintext that needs a decision per source.
    pub const PLAINTEXT: u32 = 3 + NEXT;
}

/// What happens to plaintext from outside the mesh, by port.
pub mod plaintext {
    /// In the build for tests of upgrades the first layout's numbers mean the opposite.
    const NEXT: bool = cfg!(feature = "next-layout");
    /// To the application, no agent in the path.
    pub const PASS: u32 = if NEXT { 3 } else { 1 };
    /// The agent decides by source address.
    pub const ASK: u32 = 2;
    /// Refused: mutual TLS is required, or policy denies every unauthenticated peer.
    pub const DROP: u32 = if NEXT { 1 } else { 3 };
}

/// A connection towards a pod's application, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The destination pod.
    pub pod: PodId,
    /// The client.
    pub remote: Address,
    /// The pod's own address.
    pub local: Address,
    /// Host byte order.
    pub remote_port: u16,
    /// Host byte order.
    pub local_port: u16,
    /// Zero.
    pub reserved: u32,
}

/// Who delivers a registered connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Cookie of the socket that registered it: only that socket's end removes the entry.
    pub socket: u64,
    /// One of [`owned`].
    pub role: u32,
    /// Zero.
    pub reserved: u32,
}

/// Storage on a socket of the agent or of the kubelet: proof of ownership, out of a pod's reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Owned {
    /// The pod in whose namespace the socket was made.
    pub pod: PodId,
    /// One of [`owned`].
    pub role: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a socket of the agent is for.
pub mod owned {
    /// Towards an application on this node: registered, so that `sk_lookup` lets it in.
    pub const DELIVERY: u32 = 1;
    /// Leaves the pod: a tunnel or a pass-through connection.
    pub const EGRESS: u32 = 2;
    /// Listens in the pod's namespace.
    pub const LISTENER: u32 = 3;
    /// A health check of the kubelet, which dials from the node: registered as a delivery is.
    pub const PROBE: u32 = 4;
}

#[cfg(feature = "user")]
mod pod {
    use super::{Flow, FlowKey, ListenerKey, Owned, Pod, PodAddress, PodPort, RangeData};

    macro_rules! plain {
        ($($t:ty),*) => {$(
            #[expect(unsafe_code, reason = "aya::Pod has no safe derive; layout_tests proves the absence of padding")]
            // SAFETY: repr(C) of integers and byte arrays, no padding (layout_tests), any bit pattern is valid.
            unsafe impl aya::Pod for $t {}
        )*};
    }
    plain!(
        crate::Address,
        Flow,
        FlowKey,
        ListenerKey,
        Owned,
        Pod,
        PodAddress,
        PodPort,
        RangeData
    );
}
