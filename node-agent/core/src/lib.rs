//! Policy, routing and identity as pure functions: no IO, no clock, no async.

pub mod counters;
