//! Tunnels between agents: HBONE, which is HTTP/2 CONNECT over mutual TLS on port 15008 ([`HBONE_PORT`]), as ztunnel
//! and Istio's waypoints speak it.
//!
//! [`Pool`] opens streams towards other agents, [`serve`] accepts them, [`relay`] carries one application connection
//! over one stream and [`relay_tcp`] over no tunnel at all. The `h2` crate is used directly: a layer above it hides
//! reset codes, and then an aborted connection looks like a finished one.

mod buffers;
mod connect;
mod cut;
mod download;
mod driver;
mod error;
mod handshakes;
mod keepalive;
mod peer;
mod pool;
mod presented;
mod relay;
mod relay_tcp;
mod request;
mod reset;
mod server;
mod settings;
mod stats;
mod stream;
#[cfg(test)]
mod tests;
mod upload;

pub use buffers::BufferBudget;
pub use error::TunnelError;
pub use handshakes::{Handshake, Handshakes};
pub use pool::{Pool, PoolKey};
pub use presented::{Served, Shown};
pub(crate) use relay::socket_error;
pub use relay::{RelayEnd, Side, relay};
pub use relay_tcp::relay_tcp;
pub use request::{ConnectRequest, Forwarded, forwarded_for, forwarded_host};
pub use reset::ResetWith;
pub use server::{HboneConnection, InboundRequest, serve};
pub use settings::TunnelSettings;
pub use stats::{Attempts, TunnelStats};
pub use stream::TunnelStream;

/// TCP port of HBONE at a pod's address.
pub const HBONE_PORT: u16 = 15008;

/// Response header of a refused CONNECT: the refusing agent's reason code.
const REASON_HEADER: &str = "tramline-reason";
