//! What the eBPF programs and the node agent share: keys and values of the maps, their names and capacities,
//! and the pure decisions that both sides take, so that these are tested on the host.
//!
//! Every struct is `repr(C)` of fixed-width integers without padding: a map key with padding would compare
//! bytes nobody set. Addresses are 16 bytes, IPv4 as `::ffff:a.b.c.d`: one key type, one code path.
#![cfg_attr(not(test), no_std)]

pub mod address;
pub mod counter;
pub mod event;
pub mod layout;
pub mod map;
pub mod service;
pub mod steer;
pub mod verdict;

#[cfg(test)]
mod layout_tests;

pub use address::Address;

/// The mark that routes a captured SYN to the pod's own loopback. Part of the contract ([`layout::CONTRACT_VERSION`]), as are
/// the three below: an agent finds them in pods' namespaces.
///
/// A mark is a request, never a credential: a process with `CAP_NET_RAW` can set it too, and then only sends
/// its own traffic to the agent. Its bits outside [`CAPTURE_MASK`] carry [`service::picked`].
pub const CAPTURE_MARK: u32 = 0x7472_6000;

/// The bits of a mark that make it [`CAPTURE_MARK`].
pub const CAPTURE_MASK: u32 = 0xffff_f000;

/// The routing table (per pod namespace) that the mark selects.
pub const CAPTURE_TABLE: u32 = 0x7472;

/// Priority of the `ip rule` that selects [`CAPTURE_TABLE`]: after `local` (0), before `main` (32766).
pub const CAPTURE_RULE_PRIORITY: u32 = 15_008;

/// The HBONE port: the agent answers on it inside every enrolled pod's namespace, nothing is bound there.
pub const HBONE_PORT: u16 = 15_008;

/// `IPPROTO_TCP`.
pub const IPPROTO_TCP: u32 = 6;
/// `IPPROTO_MPTCP`.
pub const IPPROTO_MPTCP: u32 = 262;

/// The pod an entry belongs to: its network namespace's cookie, which the kernel never uses twice in one boot
/// (kernel commit 92acdc58ab11, `net->net_cookie`).
pub type PodId = u64;
