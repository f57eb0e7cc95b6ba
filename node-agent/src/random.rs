//! Randomness for choices that need no secrecy: endpoints, ports, jitter.

use std::hash::{BuildHasher as _, RandomState};

/// 64 bits, from the standard library's per-thread keyed hasher: a new key for each call.
pub(crate) fn u64() -> u64 {
    RandomState::new().hash_one(0_u8)
}
