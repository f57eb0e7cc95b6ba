//! Why an agent ended a tunnel's connection: what the streams on it say in their log lines.

use std::sync::{Arc, OnceLock};

use tramline_core::reason::Reason;

/// Shared by a connection and its streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Cut(Arc<OnceLock<Reason>>);

impl Cut {
    /// To be called before the connection ends; the first reason stays.
    pub(super) fn because(&self, reason: Reason) {
        let _ = self.0.set(reason);
    }

    /// The reason of a stream that ended with its connection: the network's doing unless this agent's.
    pub(super) fn reason(&self) -> Reason {
        self.0.get().copied().unwrap_or(Reason::TunnelLost)
    }
}
