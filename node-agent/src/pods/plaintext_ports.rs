//! Ports of clients whose plaintext connections end at the agent, in the pod's own namespace.
//!
//! A delivery from the same address and port to the same port of the pod would have the 4-tuple of the client's own
//! connection: its SYN would meet that established socket and hang.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The live (client, pod address and port) pairs. Bounded by the agent's connection slots.
#[derive(Default)]
pub(crate) struct PlaintextPorts {
    held: Mutex<HashSet<(SocketAddr, SocketAddr)>>,
}

/// Keeps a pair until dropped.
pub(crate) struct Held<'a> {
    ports: &'a PlaintextPorts,
    pair: (SocketAddr, SocketAddr),
}

impl PlaintextPorts {
    /// Notes a connection of `client` to `address` of the pod.
    pub(crate) fn hold(&self, client: SocketAddr, address: SocketAddr) -> Held<'_> {
        self.lock().insert((client, address));
        Held {
            ports: self,
            pair: (client, address),
        }
    }

    /// Whether such a connection is live.
    pub(crate) fn is_held(&self, client: SocketAddr, address: SocketAddr) -> bool {
        self.lock().contains(&(client, address))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr)>> {
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
        let [v4, other] = ["10.0.0.1:80", "10.0.0.2:80"].map(|address| address.parse().unwrap());
        let held = ports.hold(client, v4);
        assert!(ports.is_held(client, v4));
        assert!(
            !ports.is_held(client, other),
            "the same client port to another address of the pod"
        );
        drop(held);
        assert!(!ports.is_held(client, v4));
    }
}
