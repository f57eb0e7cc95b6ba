//! Verdicts in the kernel, and the connections that passed by them.

use super::{Broker, BrokerError, open_sockets};
use crate::kernel::events::Passages;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};
use tramline_common::{
    PodId,
    map::FlowKey,
    verdict::{Passed, Verdict, VerdictKey, kind},
};

/// What the kernel may do with a connect by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelVerdict {
    /// Let it go to a pod of this node as without a mesh.
    Direct(PodId),
    /// Let it leave the mesh as without one.
    Outside,
    /// Refuse it: this pod of the node takes no connection from there.
    Deny(PodId),
}

/// The versions of pods at one moment: a verdict made with them is nothing once one of them has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub(super) source: u64,
    destination: Option<u64>,
}

#[cfg(test)]
impl Versions {
    /// Of no pod.
    pub(crate) const NONE: Self = Self {
        source: 0,
        destination: None,
    };
}

/// A live connection that the kernel let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PassedConnection {
    /// The pod that dialled.
    pub source: PodId,
    /// The pod of this node that was dialled, if it is one.
    pub destination: Option<PodId>,
    /// The dialling socket's address.
    pub client: SocketAddr,
    /// Where it leads.
    pub server: SocketAddr,
    /// The Service that was dialled, if it was one.
    pub service: Option<SocketAddr>,
    /// The kernel's name of the dialling socket.
    pub socket: u64,
}

impl Broker {
    /// The versions of two pods, read **before** the snapshot that a verdict about them is made from: a change that comes
    /// between the two makes the verdict void, not valid for ever. `None` while one of them has none.
    pub fn versions(&self, source: PodId, destination: Option<PodId>) -> Option<Versions> {
        let version = |pod| self.maps.verdicts.version(pod);
        Some(Versions {
            source: version(source)?,
            destination: match destination {
                Some(destination) => Some(version(destination)?),
                None => None,
            },
        })
    }

    /// Leaves a verdict on what `source` dials.
    pub fn set_verdict(
        &self,
        source: PodId,
        dialled: SocketAddr,
        verdict: KernelVerdict,
        versions: Versions,
    ) -> Result<(), BrokerError> {
        let row = row(verdict, versions, 0);
        Ok(self.maps.verdicts.set(key(source, dialled), row)?)
    }

    /// Takes a verdict back.
    pub fn remove_verdict(&self, source: PodId, dialled: SocketAddr) -> Result<(), BrokerError> {
        Ok(self.maps.verdicts.remove(&key(source, dialled))?)
    }

    /// Whether a verdict on what `source` dials is there, current or not.
    pub fn has_verdict(&self, source: PodId, dialled: SocketAddr) -> bool {
        self.maps.verdicts.get(&key(source, dialled)).is_some()
    }

    /// Takes back what counts no more, such as what earlier agents left.
    pub fn remove_void_verdicts(&self) -> Result<(), BrokerError> {
        self.maps.verdicts.remove_void()?;
        let version = |pod| self.maps.verdicts.version(pod);
        Ok(self
            .maps
            .services
            .remove_void(|key, row| version(key.source) != Some(row.source_version))?)
    }

    /// Makes all verdicts about a pod void.
    pub fn renew_version(&self, pod: PodId) -> Result<(), BrokerError> {
        let next = self.next_number(self.maps.verdicts.version(pod).unwrap_or(0));
        Ok(self.maps.verdicts.set_version(pod, next)?)
    }

    /// A number above `before` that was never used, by an earlier agent neither: the clock where it is ahead, else one more
    /// than the last.
    pub(super) fn next_number(&self, before: u64) -> u64 {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let after = |last: u64| clock.max(before.saturating_add(1)).max(last.saturating_add(1));
        let last = self
            .version
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        after(last.unwrap_or_else(|last| last))
    }

    /// Takes a pod's version away: then it has no verdicts at all.
    pub fn void_verdicts(&self, pod: PodId) -> Result<(), BrokerError> {
        Ok(self.maps.verdicts.remove_version(pod)?)
    }

    /// The pod that opened a connection which the kernel let pass towards `destination`.
    pub fn direct_source(&self, destination: PodId, client: SocketAddr, server: SocketAddr) -> Option<PodId> {
        let key = FlowKey {
            pod: destination,
            remote: client.ip().into(),
            local: server.ip().into(),
            remote_port: client.port(),
            local_port: server.port(),
            reserved: 0,
        };
        self.maps.verdicts.direct(&key).map(|passed| passed.source)
    }

    /// The live connections that the kernel let pass.
    pub fn passed(&self) -> Vec<PassedConnection> {
        let at = |address: tramline_common::Address, port| SocketAddr::new(IpAddr::from(address), port);
        let service = |passed: &Passed| {
            let dialled = &passed.service;
            dialled.is_some().then(|| at(dialled.address, dialled.port))
        };
        let direct = self.maps.verdicts.all_direct().into_iter();
        let direct = direct.map(|(key, passed): (FlowKey, Passed)| PassedConnection {
            source: passed.source,
            destination: Some(key.pod),
            client: at(key.remote, key.remote_port),
            server: at(key.local, key.local_port),
            service: service(&passed),
            socket: passed.socket,
        });
        let outside = self.maps.verdicts.all_outside().into_iter();
        let outside = outside.map(|(key, passed)| PassedConnection {
            source: passed.source,
            destination: None,
            client: at(key.local, key.local_port),
            server: at(key.remote, key.remote_port),
            service: service(&passed),
            socket: passed.socket,
        });
        direct.chain(outside).collect()
    }

    /// Ends a connection that the kernel let pass, at both ends where both are on this node (`SOCK_DESTROY`). Answers with how many
    /// of them there were still.
    pub fn cut(&self, connection: &PassedConnection) -> Result<usize, BrokerError> {
        let ends = [
            (Some(connection.source), connection.client, connection.server),
            (connection.destination, connection.server, connection.client),
        ];
        let mut result = Ok(0);
        for (pod, local, remote) in ends {
            let Some(pod) = pod else { continue };
            let done = match self.namespace(pod) {
                Ok(namespace) => open_sockets::destroy_between(&namespace, &self.home, local, remote),
                // It left the node meanwhile, and its sockets with it.
                Err(_) => continue,
            };
            match done {
                Ok(ended) => result = result.map(|before| before + ended),
                Err(source) => {
                    result = Err(BrokerError::Step {
                        step: "ending a connection that policy forbids",
                        source,
                    });
                }
            }
        }
        result
    }

    /// The moments of connections that the kernel let pass; once, inside a runtime.
    pub(crate) fn passages(&self) -> Option<io::Result<Passages>> {
        self.maps.verdicts.take_passages().map(Passages::new)
    }
}

/// A verdict as the maps hold it; `load` is the row in which its connections count.
pub(super) fn row(verdict: KernelVerdict, versions: Versions, load: u32) -> Verdict {
    let (kind, destination) = match verdict {
        KernelVerdict::Direct(pod) => (kind::DIRECT, pod),
        KernelVerdict::Outside => (kind::OUTSIDE, 0),
        KernelVerdict::Deny(pod) => (kind::DENY, pod),
    };
    Verdict {
        destination,
        source_version: versions.source,
        destination_version: versions.destination.unwrap_or(0),
        kind,
        load,
    }
}

pub(super) fn key(source: PodId, dialled: SocketAddr) -> VerdictKey {
    VerdictKey::new(source, dialled.ip().into(), dialled.port())
}
