//! What the programs tell the agent through the ring buffer: refusals, which no socket of the agent sees.

use crate::{Address, PodId};

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The pod concerned.
    pub pod: PodId,
    /// `bpf_ktime_get_ns`: nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// The other side.
    pub remote: Address,
    /// The pod's side (or the address the pod dialled).
    pub local: Address,
    /// One of [`kind`].
    pub kind: u32,
    /// Host byte order.
    pub remote_port: u16,
    /// Host byte order.
    pub local_port: u16,
}

/// Why something was refused in the kernel.
pub mod kind {
    /// Plaintext towards a port that takes none.
    pub const PLAINTEXT_DROPPED: u32 = 1;
    /// A captured or inbound SYN found no agent.
    pub const NO_LISTENER: u32 = 2;
    /// The mark could not be set at connect.
    pub const CAPTURE_FAILED: u32 = 3;
    /// The registry had no room for a delivery.
    pub const REGISTRY_FULL: u32 = 4;
    /// A SYN from outside carried the pod's own address as source.
    pub const FORGED: u32 = 5;
}

impl Event {
    /// Size of one record in the ring buffer.
    pub const SIZE: usize = size_of::<Self>();

    /// Reads a record of the ring buffer; `None` if its size is another layout's.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::SIZE] = bytes.try_into().ok()?;
        let u64_at = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let u16_at = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let address_at = |at: usize| {
            Some(Address {
                octets: bytes.get(at..at + 16)?.try_into().ok()?,
            })
        };
        Some(Self {
            pod: u64_at(0)?,
            at_ns: u64_at(8)?,
            remote: address_at(16)?,
            local: address_at(32)?,
            kind: u32::from_ne_bytes(bytes.get(48..52)?.try_into().ok()?),
            remote_port: u16_at(52)?,
            local_port: u16_at(54)?,
        })
    }
}
