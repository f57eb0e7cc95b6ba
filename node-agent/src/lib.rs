//! The Tramline node agent as a library; `main.rs` is the `tramline` binary.
//!
//! The path of a connection: `accept` → `outbound` or `inbound`, which call `identify`, the policy core, `dial`
//! and `tunnel` in order, and tell `observe`.

mod accept;
pub mod agent;
mod balancer;
pub mod broker;
pub mod cli;
mod context;
mod current;
mod dial;
pub mod discover;
pub mod doctor;
mod duty;
pub mod identify;
mod inbound;
mod kernel;
mod latency;
#[cfg(test)]
mod memory_budget_tests;
pub mod observe;
mod outbound;
mod pods;
mod random;
mod recheck;
mod sys;
pub mod tunnel;
mod verdicts;
