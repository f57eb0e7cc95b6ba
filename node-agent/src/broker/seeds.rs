//! Ports on which a pod listened before the programs watched it. `sockops` tells neither of these sockets nor of their end, so
//! the agent writes their ports into the programs' table and looks from time to time which of them are still open.

use super::{
    Broker, BrokerError,
    open_sockets::{self, Cookie, Listening},
};
use crate::sys::netns::Netns;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::PoisonError,
};
use tramline_common::PodId;

/// The sockets by which a port counts as listening. A port goes with the last of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seeds(BTreeMap<u16, BTreeSet<Cookie>>);

impl Seeds {
    /// What was open at an enrolment. Ports that are counted are left to `sockops`, but for those that were seeded before: of
    /// the sockets there, some may be older than what is counted.
    fn at_enrolment(
        listening: &Listening,
        is_counted: impl Fn(u16) -> bool,
        before: impl Fn(u16) -> bool,
    ) -> Self {
        let seeds = listening
            .iter()
            .filter(|(port, _)| before(**port) || !is_counted(**port));
        Self(seeds.map(|(port, sockets)| (*port, sockets.clone())).collect())
    }

    /// What is left of them. Where all of a port's have gone and nothing is counted though sockets listen there, those were
    /// counted together with one that has gone: they take its place.
    fn followed(&self, listening: &Listening, is_counted: impl Fn(u16) -> bool) -> Self {
        let left = self.0.iter().filter_map(|(port, seeds)| {
            let open = listening.get(port)?;
            let old: BTreeSet<_> = seeds.intersection(open).copied().collect();
            match old.is_empty() {
                false => Some((*port, old)),
                true if is_counted(*port) => None,
                true => Some((*port, open.clone())),
            }
        });
        Self(left.collect())
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.keys().copied()
    }

    fn has(&self, port: u16) -> bool {
        self.0.contains_key(&port)
    }
}

impl Broker {
    /// Ports that an agent before this one seeded.
    pub(super) fn seeds_before(&self, id: PodId) -> Seeds {
        let ports = self.maps.seeded(id).into_iter();
        Seeds(ports.map(|port| (port, BTreeSet::new())).collect())
    }

    /// Tells the programs on which ports a pod listens that they have not seen begin.
    pub(super) fn seed(
        &self,
        id: PodId,
        listening: &Listening,
        before: &Seeds,
    ) -> Result<Seeds, BrokerError> {
        let is_counted = |port| self.maps.is_counted_listening(id, port);
        let seeds = Seeds::at_enrolment(listening, is_counted, |port| before.has(port));
        self.write(id, before, &seeds)?;
        Ok(seeds)
    }

    /// Takes the word back where the sockets have closed; answers whether any are left. Costs a dump of the listening sockets
    /// of the namespace where there is something to take back.
    pub fn follow_seeds(&self, id: PodId) -> Result<bool, BrokerError> {
        let pod = self
            .pods()
            .get(&id)
            .map(|pod| (pod.namespace.clone(), pod.seeds.clone()));
        let (namespace, seeds) = pod.ok_or(BrokerError::NotEnrolled(id))?;
        let mut seeds = seeds.lock().unwrap_or_else(PoisonError::into_inner);
        if seeds.0.is_empty() {
            return Ok(false);
        }
        let listening = listed(open_sockets::listening(&namespace, &self.home))?;
        let left = seeds.followed(&listening, |port| self.maps.is_counted_listening(id, port));
        self.write(id, &seeds, &left)?;
        *seeds = left;
        Ok(!seeds.0.is_empty())
    }

    fn write(&self, id: PodId, before: &Seeds, seeds: &Seeds) -> Result<(), BrokerError> {
        let new = seeds.ports().filter(|port| !before.has(*port));
        let gone = before.ports().filter(|port| !seeds.has(*port));
        Ok(self.maps.change_seeded(id, new, gone)?)
    }

    pub(super) fn open_sockets(&self, namespace: &Netns) -> Result<open_sockets::OpenSockets, BrokerError> {
        listed(open_sockets::of(namespace, &self.home))
    }
}

fn listed<T>(result: std::io::Result<T>) -> Result<T, BrokerError> {
    result.map_err(|source| BrokerError::Step {
        step: "listing the pod's open sockets",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::{Listening, Seeds};

    /// Sockets by port.
    fn sockets(ports: &[(u16, &[u8])]) -> Listening {
        let of = |cookies: &[u8]| cookies.iter().map(|cookie| [*cookie; 8]).collect();
        ports.iter().map(|(port, cookies)| (*port, of(cookies))).collect()
    }

    fn seeds(ports: &[(u16, &[u8])]) -> Seeds {
        Seeds(sockets(ports))
    }

    #[test]
    fn what_sockops_counts_is_not_seeded() {
        let open = sockets(&[(80, &[1]), (81, &[2, 3])]);
        let at = |counted: u16, before: u16| {
            Seeds::at_enrolment(&open, |port| port == counted, |port| port == before)
        };
        assert_eq!(at(0, 0), seeds(&[(80, &[1]), (81, &[2, 3])]));
        assert_eq!(at(81, 0), seeds(&[(80, &[1])]));
        // One of the two may be older than what is counted: an agent before this one has said so.
        assert_eq!(at(81, 81), seeds(&[(80, &[1]), (81, &[2, 3])]));
    }

    #[test]
    fn a_port_goes_with_the_last_of_its_sockets() {
        let before = seeds(&[(80, &[1, 2]), (81, &[3])]);
        let one = before.followed(&sockets(&[(80, &[2]), (81, &[3])]), |_| false);
        assert_eq!(one, seeds(&[(80, &[2]), (81, &[3])]));
        assert_eq!(
            one.followed(&sockets(&[(81, &[3])]), |_| false),
            seeds(&[(81, &[3])])
        );
        assert_eq!(before.followed(&sockets(&[]), |_| false), seeds(&[]));
    }

    #[test]
    fn sockets_that_came_later_are_counted_by_sockops() {
        let before = seeds(&[(80, &[1])]);
        let both = sockets(&[(80, &[1, 2]), (90, &[9])]);
        assert_eq!(before.followed(&both, |_| true), before);
        assert_eq!(before.followed(&sockets(&[(80, &[2])]), |_| true), seeds(&[]));
        // The end of the first was taken off the count of the second: the pod had been enrolled before, and released.
        assert_eq!(
            before.followed(&sockets(&[(80, &[2])]), |_| false),
            seeds(&[(80, &[2])])
        );
    }
}
