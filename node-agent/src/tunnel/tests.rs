//! Tunnels in one process, over loopback, with certificates of the real authority.

mod cuts;
mod failures;
mod flow;
mod outcomes;
mod pooling;
mod rotation;
mod support;
