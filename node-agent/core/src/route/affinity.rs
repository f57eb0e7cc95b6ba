//! `sessionAffinity: ClientIP`: which client went where.
//!
//! As with kube-proxy a client is pinned per Service port, each new connection puts the end off, and the pin holds while
//! the endpoint takes connections. New endpoints take nobody away from the old ones. Pins are not kept over a
//! restart of the agent; a client without one is sent by a hash, which is the same again while the endpoints are.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::expiring::Expiring;
use crate::service::Service;

/// Kubernetes' default for `sessionAffinityConfig.clientIP.timeoutSeconds`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10_800);
/// The longest that Kubernetes takes.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// Clients × Service ports of one node; beyond, the pins that end first are forgotten.
const CAPACITY: usize = 65_536;

/// The clients of one node that are pinned. Times are counted from any fixed moment.
#[derive(Debug)]
pub struct Pins(Expiring<(IpAddr, Arc<str>, u16), SocketAddr>);

impl Default for Pins {
    fn default() -> Self {
        Self(Expiring::new(CAPACITY))
    }
}

impl Pins {
    /// Where a client's last connection to the Service's port went, if that is recent enough.
    pub fn get(&self, client: IpAddr, service: &Service, port: u16, now: Duration) -> Option<SocketAddr> {
        service.session_affinity?;
        self.0
            .get(&(client.to_canonical(), service.hostname.clone(), port), now)
            .copied()
    }

    /// Remembers where a client's connection goes; nothing for a Service without affinity.
    pub fn set(&mut self, client: IpAddr, service: &Service, port: u16, endpoint: SocketAddr, now: Duration) {
        if let Some(timeout) = service.session_affinity {
            let key = (client.to_canonical(), service.hostname.clone(), port);
            self.0.insert(key, endpoint, now + timeout, now);
        }
    }

    /// Whether no client is pinned.
    pub fn is_empty(&self, now: Duration) -> bool {
        self.0.is_empty(now)
    }

    /// How many clients are pinned.
    pub fn len(&self, now: Duration) -> usize {
        self.0.len(now)
    }
}
