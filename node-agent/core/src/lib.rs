//! Policy, routing and identity as pure functions: no IO, no clock, no async.
//!
//! A source of configuration (files today) hands [`object::Objects`] to [`mesh::Mesh::build`], which either answers
//! with one immutable [`mesh::Mesh`] or with every error it found. Everything else here asks that snapshot:
//! [`route::outbound`] where a connection goes, [`admit::inbound_target`] whether a tunnel may lead there,
//! [`authz::decide`] whether a peer may pass, [`plaintext::table`] what the kernel may answer by itself,
//! [`explain::explain`] all of it about one connection.

pub mod admit;
pub mod authz;
pub mod baggage;
pub mod cluster;
pub mod counters;
pub mod explain;
pub mod identity;
pub mod labels;
pub mod mesh;
pub mod object;
pub mod peer_authentication;
pub mod plaintext;
pub mod reason;
pub mod route;
pub mod service;
pub mod trace;
pub mod verdict;
pub mod workload;
