//! The system calls that no safe library offers, each as one small safe function.
//!
//! All `unsafe` of the agent is here. Everything privileged in here is reached through [`crate::broker`] only.
#![expect(
    unsafe_code,
    reason = "the one address of unsafe code in the agent; every block names its invariant"
)]

pub(crate) mod bpf;
pub(crate) mod netns;
pub(crate) mod readiness;
pub(crate) mod shared_words;
pub(crate) mod socket;
