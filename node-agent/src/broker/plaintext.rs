//! Connections that the kernel passed straight to an application, because plaintext may come in.

use super::{Broker, BrokerError, OpenSocket, open_sockets};
use tramline_common::{HBONE_PORT, PodId, map::FlowKey};

impl Broker {
    /// The pod's live inbound connections that nobody in the mesh vouches for: neither deliveries nor connections that the
    /// kernel let pass by a verdict. What the pod or the agent dialled is not inbound, whatever port it is from: such sockets have
    /// a storage, and those that were accepted have none. Those that end in the agent's own listeners are among them.
    ///
    /// One whose application has said its last is not listed: it looks like a delivery that is ending.
    pub fn unvouched(&self, id: PodId) -> Result<Vec<OpenSocket>, BrokerError> {
        let namespace = self.namespace(id)?;
        let list = || {
            let live = open_sockets::live(&namespace, &self.home, &self.maps.storages());
            live.map_err(|source| BrokerError::Step {
                step: "listing the pod's live connections",
                source,
            })
        };
        let unvouched: Vec<_> = list()?
            .established
            .into_iter()
            .filter(|socket| !self.is_vouched_for(id, socket))
            .collect();
        if unvouched.is_empty() {
            return Ok(unvouched);
        }
        // A delivery is forgotten when its application says its last, which may have been after the list was made: by
        // then its socket is not on it any more.
        let still = list()?.established;
        Ok(unvouched
            .into_iter()
            .filter(|socket| still.iter().any(|other| other.cookie == socket.cookie))
            .collect())
    }

    fn is_vouched_for(&self, id: PodId, socket: &OpenSocket) -> bool {
        let is_mine = |address| self.maps.is_pod_address(id, address);
        // Also where the application listens no more: it may have stopped since.
        let is_inbound = (socket.inbound || self.maps.has_listened(id, socket.local.port()))
            && socket.local.port() != HBONE_PORT
            && is_mine(socket.local.ip())
            && !is_mine(socket.remote.ip());
        if !is_inbound {
            return true;
        }
        let key = FlowKey {
            pod: id,
            remote: socket.remote.ip().into(),
            local: socket.local.ip().into(),
            remote_port: socket.remote.port(),
            local_port: socket.local.port(),
            reserved: 0,
        };
        self.maps.is_registered(&key) || self.maps.verdicts.direct(&key).is_some()
    }
}
