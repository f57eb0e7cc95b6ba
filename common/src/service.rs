//! Services that the kernel resolves by itself: the endpoints between which the agent would choose, and how busy they are.
//!
//! The choice is the agent's own (`tramline_core::route`): of two endpoints drawn at random the less busy one. Both count
//! their connections in the same rows, so that neither sees half of them. An endpoint that the kernel may not connect to
//! is chosen all the same and told to the agent: else those that it may connect to would get more than their share.

use crate::{Address, verdict::Verdict};

/// Services × pods that dial them on one node, at most.
pub const MAX_SERVICES: usize = 16_384;
/// Endpoints of all of them together.
pub const MAX_ENDPOINTS: usize = 262_144;
/// Endpoints of one row: what [`picked`] can carry.
pub const MAX_ENDPOINTS_OF_ROW: usize = 1_024;
/// Endpoints whose connections are counted.
pub const MAX_LOADS: usize = 16_384;

/// A Service's endpoints, for one pod that dials it. Counts only while that pod has the version it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceRow {
    /// Names the endpoints; never used twice.
    pub row: u64,
    /// Version of the pod that dials.
    pub source_version: u64,
    /// How many endpoints: [`EndpointKey::index`] counts from zero.
    pub endpoints: u32,
    /// Zero.
    pub reserved: u32,
}

/// One endpoint of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct EndpointKey {
    /// [`ServiceRow::row`].
    pub row: u64,
    /// Which of them.
    pub index: u32,
    /// Zero.
    pub reserved: u32,
}

impl EndpointKey {
    /// The key of an endpoint.
    #[inline(always)]
    pub const fn new(row: u64, index: u32) -> Self {
        Self {
            row,
            index,
            reserved: 0,
        }
    }
}

/// Where an endpoint is, and what the kernel may do with a connection to it; [`crate::verdict::kind::NONE`] is the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Endpoint {
    /// The verdict.
    pub verdict: Verdict,
    /// Its address.
    pub address: Address,
    /// Host byte order.
    pub port: u16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// Live connections to one endpoint. Row zero is nobody's. Five words: the agent reads and writes them in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Load {
    /// Whose row it is; all zeros for a free one.
    pub address: Address,
    /// Host byte order.
    pub port: u64,
    /// Connections that the kernel let pass to it.
    pub kernel: u64,
    /// Connections that the agent carries to it.
    pub agent: u64,
}

impl Load {
    /// Connections to it. A count of the kernel that fell below zero (a row that changed hands meanwhile) is none.
    #[inline(always)]
    pub const fn connections(kernel: u64, agent: u64) -> u64 {
        let kernel = if (kernel as i64) < 0 { 0 } else { kernel };
        kernel.wrapping_add(agent)
    }
}

/// The first of two draws: an index below `count`, uniform to within `count` / 2³².
#[inline(always)]
pub const fn first(draw: u32, count: u32) -> u32 {
    ((draw as u64 * count as u64) >> 32) as u32
}

/// The second of two draws, among the others: one that is drawn twice would be no choice. `count` is at least two.
#[inline(always)]
pub const fn second(draw: u32, count: u32, first: u32) -> u32 {
    let other = ((draw as u64 * (count - 1) as u64) >> 32) as u32;
    if other >= first { other + 1 } else { other }
}

/// The mark that tells the agent which endpoint of the row was chosen.
#[inline(always)]
pub const fn picking(index: u32) -> u32 {
    crate::CAPTURE_MARK | ((index + 1) & !crate::CAPTURE_MASK)
}

/// The endpoint that a mark tells; `None` where none was chosen. Whoever can set marks in a pod chooses for that pod.
#[inline(always)]
pub const fn picked(mark: u32) -> Option<u32> {
    if mark & crate::CAPTURE_MASK != crate::CAPTURE_MARK {
        return None;
    }
    (mark & !crate::CAPTURE_MASK).checked_sub(1)
}

#[cfg(feature = "user")]
mod pod {
    use super::{Endpoint, EndpointKey, Load, ServiceRow};

    macro_rules! plain {
        ($($t:ty),*) => {$(
            #[expect(unsafe_code, reason = "aya::Pod has no safe derive; the tests below prove the absence of padding")]
            // SAFETY: repr(C) of integers and byte arrays, no padding, any bit pattern is valid.
            unsafe impl aya::Pod for $t {}
        )*};
    }
    plain!(Endpoint, EndpointKey, Load, ServiceRow);
}

#[cfg(test)]
mod tests {
    use super::{
        Endpoint, EndpointKey, Load, MAX_ENDPOINTS_OF_ROW, ServiceRow, first, picked, picking, second,
    };
    use crate::{CAPTURE_MARK, CAPTURE_MASK};

    #[test]
    fn no_struct_has_padding() {
        assert_eq!(size_of::<ServiceRow>(), 2 * 8 + 2 * 4);
        assert_eq!(size_of::<EndpointKey>(), 8 + 2 * 4);
        assert_eq!(size_of::<Endpoint>(), 32 + 16 + 2 + 6);
        assert_eq!(size_of::<Load>(), 16 + 3 * 8);
    }

    #[test]
    fn draws_cover_every_endpoint_and_never_one_twice() {
        for count in 2..9_u32 {
            let mut seen = std::collections::HashSet::new();
            for step in 0..64_u32 {
                let draw = step << 26;
                let one = first(draw, count);
                assert!(one < count);
                for step in 0..64_u32 {
                    let two = second(step << 26, count, one);
                    assert!(two < count && two != one);
                    seen.insert((one, two));
                }
            }
            assert_eq!(seen.len() as u32, count * (count - 1));
        }
        assert_eq!(first(u32::MAX, 1), 0);
        assert_eq!(second(u32::MAX, 2, 0), 1);
        assert_eq!(second(u32::MAX, 2, 1), 0);
    }

    #[test]
    fn a_mark_carries_the_choice() {
        assert_eq!(CAPTURE_MARK & !CAPTURE_MASK, 0);
        assert_eq!(picked(CAPTURE_MARK), None);
        assert_eq!(picked(0), None);
        assert_eq!(picked(1), None, "somebody else's mark");
        for index in [0, 1, MAX_ENDPOINTS_OF_ROW as u32 - 1] {
            assert_eq!(picking(index) & CAPTURE_MASK, CAPTURE_MARK);
            assert_eq!(picked(picking(index)), Some(index));
        }
    }

    #[test]
    fn a_count_below_zero_is_none() {
        assert_eq!(Load::connections(3, 2), 5);
        assert_eq!(Load::connections(u64::MAX, 2), 2);
    }
}
