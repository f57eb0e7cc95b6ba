//! Ports of clients whose plaintext connections end at the agent, in the pod's own namespace.
//!
//! A delivery from the same address and port to the same port of the pod would have the 4-tuple of the client's own
//! connection: its SYN would meet that established socket and hang.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The live (client, pod port) pairs. Bounded by the agent's connection slots.
#[derive(Default)]
pub(crate) struct PlaintextPorts {
    held: Mutex<HashSet<(SocketAddr, u16)>>,
}

/// Keeps a pair until dropped.
pub(crate) struct Held<'a> {
    ports: &'a PlaintextPorts,
    pair: (SocketAddr, u16),
}

impl PlaintextPorts {
    /// Notes a connection of `client` to `port` of the pod.
    pub(crate) fn hold(&self, client: SocketAddr, port: u16) -> Held<'_> {
        self.lock().insert((client, port));
        Held {
            ports: self,
            pair: (client, port),
        }
    }

    /// Whether such a connection is live.
    pub(crate) fn is_held(&self, client: SocketAddr, port: u16) -> bool {
        self.lock().contains(&(client, port))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(SocketAddr, u16)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.ports.lock().remove(&self.pair);
    }
}

#[cfg(test)]
mod tests {
    use super::PlaintextPorts;

    #[test]
    fn a_pair_is_held_as_long_as_its_connection() {
        let ports = PlaintextPorts::default();
        let client = "10.0.0.9:40000".parse().unwrap();
        let held = ports.hold(client, 80);
        assert!(ports.is_held(client, 80));
        assert!(!ports.is_held(client, 81));
        drop(held);
        assert!(!ports.is_held(client, 80));
    }
}
