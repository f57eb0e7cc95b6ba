//! What the agent tells about itself: connection records, metrics, the access log, health, the admin socket.
//!
//! In: a [`ConnectionInfo`] when a connection is accepted, an [`Outcome`] when it ends. Out: one access-log line and
//! the metrics of Istio's names. Nothing here can hold up or fail a connection.

pub mod access_log;
pub mod admin;
pub mod checks;
mod connections;
mod http;
pub mod logging;
pub mod metrics;
mod observer;
mod record;
pub mod server;
#[cfg(test)]
pub(crate) mod test_support;

pub use connections::Connections;
pub use observer::{Observer, OpenConnection};
pub use record::{ConnectionInfo, KernelCarried, Outcome, Path, Reporter, SecurityPolicy, Verdict};

/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of this build, where the build said so (`TRAMLINE_COMMIT`).
pub const COMMIT: &str = match option_env!("TRAMLINE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
