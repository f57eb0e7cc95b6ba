//! Verdicts that the agent left in the kernel: what it decided about a connection of a pod, so that the next one like it
//! needs no agent.
//!
//! A verdict is a result, never a rule. It counts only while the pods it is about have the versions it was made with: the
//! agent gives a pod another version before it acknowledges a change that concerns it, and an old verdict is then nothing.

use crate::{Address, PodId};

/// Verdicts on one node, at most; the agent bounds them by pod as well.
pub const MAX_VERDICTS: usize = 65_536;
/// Connections that the kernel let pass and that live, of each kind.
pub const MAX_PASSED: usize = 262_144;
/// Bytes of the ring buffer of [`Passage`]; a power of two and a multiple of the page size.
pub const PASSAGE_RING_BYTES: usize = 4 * 1024 * 1024;

/// What was decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct VerdictKey {
    /// Only there to make another layout.
    #[cfg(feature = "next-layout")]
    pub next: u64,
    /// The pod that dials.
    pub source: PodId,
    /// What it dials.
    pub address: Address,
    /// Host byte order.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

impl VerdictKey {
    /// The key of what `source` dials.
    #[inline(always)]
    pub const fn new(source: PodId, address: Address, port: u16) -> Self {
        Self {
            #[cfg(feature = "next-layout")]
            next: u64::MAX,
            source,
            address,
            port,
            reserved: [0; 3],
        }
    }
}

/// What was decided, and about whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Verdict {
    /// The pod of this node that was dialled; zero where it is none.
    pub destination: PodId,
    /// Version of the pod that dials.
    pub source_version: u64,
    /// Version of the pod that was dialled; zero where it is none of this node.
    pub destination_version: u64,
    /// One of [`kind`].
    pub kind: u32,
    /// Row of [`crate::service::Load`] in which connections to it count; zero where none does.
    pub load: u32,
}

/// Storage on a socket that was let pass: by what, and what is known of it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Picked {
    /// The verdict.
    pub verdict: Verdict,
    /// The Service that the application dialled, if it was one.
    pub service: ServiceAt,
    /// `bpf_ktime_get_ns` at its SYN.
    pub began_ns: u64,
    /// Bytes that had come when its FIN was acknowledged; [`NOT_DIALLED`] until the SYN leaves.
    pub received: u64,
}

/// What was let pass has not been dialled yet: after the hook `connect` may fail, or wait for the first bytes (`TCP_FASTOPEN_CONNECT`).
pub const NOT_DIALLED: u64 = u64::MAX;

/// A verdict on what leaves the mesh is good for so long after `connect`: no version of the other end tells of a change. Shorter than
/// the agent waits for its second look after one.
pub const OUTSIDE_GOOD_FOR_NS: u64 = 250_000_000;

/// The Service that an application dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceAt {
    /// Its address; all zeros where no Service was dialled.
    pub address: Address,
    /// Host byte order; zero where no Service was dialled.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

impl ServiceAt {
    /// No Service was dialled.
    pub const NONE: Self = Self::new(Address { octets: [0; 16] }, 0);

    /// The Service at an address and port.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            reserved: [0; 3],
        }
    }

    /// Whether one was dialled: nobody can dial port zero of a Service.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.port != 0
    }
}

/// What was decided. A destination without a verdict is the agent's.
pub mod kind {
    /// Nothing: the connection is the agent's.
    pub const NONE: u32 = 0;
    /// From pod to pod on this node, as without a mesh.
    pub const DIRECT: u32 = 1;
    /// Out of the mesh, as without one.
    pub const OUTSIDE: u32 = 2;
    /// Refused.
    pub const DENY: u32 = 3;
}

/// A live connection that the kernel let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Passed {
    /// Cookie of the socket that dialled: only its end removes the entry.
    pub socket: u64,
    /// The pod that dialled.
    pub source: PodId,
    /// Its version at that moment.
    pub source_version: u64,
    /// Version of the pod that was dialled; zero where it is none of this node.
    pub destination_version: u64,
    /// The Service that the application dialled, if it was one.
    pub service: ServiceAt,
}

/// One moment of a connection that the kernel let pass or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Passage {
    /// Cookie of the socket that dialled; zero for a refusal.
    pub socket: u64,
    /// The pod that dialled.
    pub source: PodId,
    /// The pod that was dialled; zero where it is none of this node.
    pub destination: PodId,
    /// `bpf_ktime_get_ns`: nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// The same at its SYN.
    pub began_ns: u64,
    /// Application bytes that arrived at the other end for certain.
    pub sent: u64,
    /// Application bytes that came.
    pub received: u64,
    /// The socket's own address.
    pub local: Address,
    /// The other end's address.
    pub remote: Address,
    /// The Service that the application dialled, if it was one.
    pub service: ServiceAt,
    /// One of [`moment`].
    pub moment: u32,
    /// One of [`kind`].
    pub kind: u32,
    /// Smoothed round trip in microseconds.
    pub srtt_us: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order.
    pub remote_port: u16,
    /// State of TCP in which it ended (`BPF_TCP_*`).
    pub state: u32,
}

/// What happened.
pub mod moment {
    /// The connection is up.
    pub const ESTABLISHED: u32 = 1;
    /// It has ended, or never came up.
    pub const ENDED: u32 = 2;
    /// It was refused at connect.
    pub const REFUSED: u32 = 3;
    /// To an endpoint of a Service: the SYN was not answered in time and is sent again. Told once.
    pub const UNANSWERED: u32 = 4;
    /// It has ended before anything came from the other end.
    pub const GIVEN_UP: u32 = 5;
}

impl Passage {
    /// Size of one record in the ring buffer.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a record of the ring buffer; `None` if its size is another layout's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let u16_at = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let address_at = |at: usize| {
            Some(Address {
                octets: bytes.get(at..at + 16)?.try_into().ok()?,
            })
        };
        Some(Self {
            socket: u64_at(0)?,
            source: u64_at(8)?,
            destination: u64_at(16)?,
            at_ns: u64_at(24)?,
            began_ns: u64_at(32)?,
            sent: u64_at(40)?,
            received: u64_at(48)?,
            local: address_at(56)?,
            remote: address_at(72)?,
            service: ServiceAt::new(address_at(88)?, u16_at(104)?),
            moment: u32_at(112)?,
            kind: u32_at(116)?,
            srtt_us: u32_at(120)?,
            retransmits: u32_at(124)?,
            local_port: u16_at(128)?,
            remote_port: u16_at(130)?,
            state: u32_at(132)?,
        })
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::{Passed, Verdict, VerdictKey};

    macro_rules! plain {
        ($($t:ty),*) => {$(
            #[expect(unsafe_code, reason = "aya::Pod has no safe derive; the tests below prove the absence of padding")]
            // SAFETY: repr(C) of integers and byte arrays, no padding, any bit pattern is valid.
            unsafe impl aya::Pod for $t {}
        )*};
    }
    plain!(Passed, Verdict, VerdictKey);
}

#[cfg(test)]
mod tests {
    use super::{Passage, Passed, Picked, ServiceAt, Verdict, VerdictKey, kind, moment};
    use crate::Address;

    #[test]
    fn no_struct_has_padding() {
        assert_eq!(size_of::<VerdictKey>(), 8 + 16 + 2 + 6);
        assert_eq!(size_of::<Verdict>(), 3 * 8 + 2 * 4);
        assert_eq!(size_of::<ServiceAt>(), 16 + 2 + 6);
        assert_eq!(size_of::<Passed>(), 4 * 8 + 24);
        assert_eq!(size_of::<Picked>(), 32 + 24 + 2 * 8);
        assert_eq!(size_of::<Passage>(), 7 * 8 + 2 * 16 + 24 + 4 * 4 + 2 * 2 + 4);
    }

    #[test]
    fn a_passage_survives_the_ring_buffer() {
        let passage = Passage {
            socket: 1,
            source: 2,
            destination: 3,
            at_ns: 4,
            began_ns: 11,
            sent: 5,
            received: 6,
            local: Address::v4([10, 0, 0, 9]),
            remote: Address { octets: [3; 16] },
            service: ServiceAt::new(Address::v4([10, 96, 0, 1]), 81),
            moment: moment::ENDED,
            kind: kind::DIRECT,
            srtt_us: 7,
            retransmits: 8,
            local_port: 40_000,
            remote_port: 80,
            state: 9,
        };
        let mut bytes = Vec::new();
        for number in [1_u64, 2, 3, 4, 11, 5, 6] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(passage.local.octets);
        bytes.extend(passage.remote.octets);
        bytes.extend(passage.service.address.octets);
        bytes.extend(81_u64.to_le_bytes());
        for number in [moment::ENDED, kind::DIRECT, 7, 8] {
            bytes.extend(number.to_ne_bytes());
        }
        bytes.extend(40_000_u16.to_ne_bytes());
        bytes.extend(80_u16.to_ne_bytes());
        bytes.extend(9_u32.to_ne_bytes());
        assert_eq!(Passage::from_bytes(&bytes), Some(passage));
        assert_eq!(Passage::from_bytes(&bytes[1..]), None);
    }
}
