//! Tunnels in one process, over loopback, with certificates of the real authority.

mod failures;
mod flow;
mod outcomes;
mod pooling;
mod support;
