//! Ports on which a pod listened before the programs watched it. `sockops` tells neither of these sockets nor of their end, so
//! the agent writes their ports into the programs' table and looks from time to time which of them are still open.
//!
//! All pods share the table, and a row stays when its port is closed. So room is made of the rows of pods that have many on
//! which nothing listens, and a port without a row keeps no pod out of the mesh: it looks closed until there is one.

use super::{
    Broker, BrokerError,
    open_sockets::{self, Cookie, Listening},
};
use crate::sys::netns::Netns;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};
use tramline_common::{PodId, counter::Counter};

/// So many ports that a pod does not listen on any more keep their row: removing it costs a dump of the pod's sockets.
const IDLE_PORTS: usize = 64;

/// The sockets by which a port counts as listening. A port goes with the last of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seeds {
    sockets: Listening,
    /// Those of the ports for which there was no row.
    waiting: BTreeSet<u16>,
}

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
        seeds.map(|(port, sockets)| (*port, sockets.clone())).collect()
    }

    /// What is left of them. Where all of a port's have gone and nothing is counted though sockets listen there, those were
    /// counted together with one that has gone: they take its place.
    fn followed(&self, listening: &Listening, is_counted: impl Fn(u16) -> bool) -> Self {
        let left = self.sockets.iter().filter_map(|(port, seeds)| {
            let open = listening.get(port)?;
            let old: BTreeSet<_> = seeds.intersection(open).copied().collect();
            match old.is_empty() {
                false => Some((*port, old)),
                true if is_counted(*port) => None,
                true => Some((*port, open.clone())),
            }
        });
        left.collect()
    }

    /// Adds sockets that listen and that nobody has told the programs of.
    fn add_missing(&mut self, listening: Listening, is_counted: impl Fn(u16) -> bool) {
        for (port, sockets) in listening {
            if !self.has(port) && !is_counted(port) {
                self.sockets.insert(port, sockets);
                self.waiting.insert(port);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.sockets.keys().copied()
    }

    fn has(&self, port: u16) -> bool {
        self.sockets.contains_key(&port)
    }
}

impl FromIterator<(u16, BTreeSet<Cookie>)> for Seeds {
    fn from_iter<T: IntoIterator<Item = (u16, BTreeSet<Cookie>)>>(sockets: T) -> Self {
        Self {
            sockets: sockets.into_iter().collect(),
            waiting: BTreeSet::new(),
        }
    }
}

impl Broker {
    /// Ports that an agent before this one seeded.
    pub(super) fn seeds_before(&self, id: PodId) -> Seeds {
        let ports = self.maps.seeded(id).into_iter();
        ports.map(|port| (port, BTreeSet::new())).collect()
    }

    /// Tells the programs on which ports a pod listens that they have not seen begin.
    pub(super) fn seed(
        &self,
        id: PodId,
        listening: &Listening,
        before: &Seeds,
    ) -> Result<Seeds, BrokerError> {
        let is_counted = |port| self.maps.is_counted_listening(id, port);
        let mut seeds = Seeds::at_enrolment(listening, is_counted, |port| before.has(port));
        self.write(id, before, &mut seeds)?;
        if !seeds.waiting.is_empty() {
            self.make_room();
            self.write_waiting(id, &mut seeds);
        }
        if !seeds.waiting.is_empty() {
            tracing::warn!(
                pod = format!("{id:#x}"),
                ports = seeds.waiting.len(),
                "the kernel's table of listening ports is full: ports of a pod look closed to plaintext until it is not"
            );
        }
        Ok(seeds)
    }

    /// Takes the word back where the sockets have closed; answers whether any are left. Costs a dump of the listening sockets
    /// of the namespace where there is something to take back.
    pub fn follow_seeds(&self, id: PodId) -> Result<bool, BrokerError> {
        let (namespace, seeds) = self.seeds_of(id)?;
        let mut seeds = seeds.lock().unwrap_or_else(PoisonError::into_inner);
        if seeds.is_empty() {
            return Ok(false);
        }
        let is_counted = |port| self.maps.is_counted_listening(id, port);
        let listening = listed(open_sockets::listening(&namespace, &self.home))?;
        let mut left = seeds.followed(&listening, is_counted);
        self.write(id, &seeds, &mut left)?;
        if left.sockets.len() < seeds.sockets.len() {
            // Who began to listen on one of them meanwhile may not be counted.
            left.add_missing(
                listed(open_sockets::listening(&namespace, &self.home))?,
                is_counted,
            );
            self.write_waiting(id, &mut left);
        }
        *seeds = left;
        Ok(!seeds.is_empty())
    }

    /// Removes the rows of ports on which nothing listens any more, of pods that have many of them, and tells the programs of
    /// sockets that listen without a row. Walks the rows of all pods; to be called from time to time.
    pub fn make_room(&self) {
        let mut idle = self.maps.idle_ports();
        idle.retain(|_, ports| ports.len() > IDLE_PORTS);
        let refused = self.maps.counter(Counter::ListeningFull);
        let some_were = self.listening_refused.swap(refused, Ordering::Relaxed) != refused;
        let pods: Vec<PodId> = self.pods().keys().copied().collect();
        let mut done = Ok(());
        for id in pods.iter().filter(|id| idle.contains_key(id)) {
            done = done.and(self.remove_idle(*id, &idle[id]));
        }
        for id in pods.iter().filter(|id| some_were || idle.contains_key(id)) {
            done = done.and(self.seed_missing(*id));
        }
        if let Err(error) = done {
            tracing::debug!(%error, "cannot make room in the table of listening ports");
        }
    }

    fn remove_idle(&self, id: PodId, idle: &BTreeSet<u16>) -> Result<(), BrokerError> {
        let (namespace, _) = self.seeds_of(id)?;
        let open = listed(open_sockets::live(&namespace, &self.home, &[]))?;
        // By the row it is known that a connection there came in, also when its listener has gone.
        let used: BTreeSet<u16> = open
            .established
            .iter()
            .map(|socket| socket.local.port())
            .collect();
        for port in idle.difference(&used) {
            if !open.listening.contains_key(port) {
                self.maps.remove_idle(id, *port)?;
            }
        }
        Ok(())
    }

    /// Sockets that listen and are not counted: there was no row for them, or theirs was removed as they began.
    fn seed_missing(&self, id: PodId) -> Result<(), BrokerError> {
        let (namespace, seeds) = self.seeds_of(id)?;
        let mut seeds = seeds.lock().unwrap_or_else(PoisonError::into_inner);
        let listening = listed(open_sockets::listening(&namespace, &self.home))?;
        seeds.add_missing(listening, |port| self.maps.is_counted_listening(id, port));
        self.write_waiting(id, &mut seeds);
        Ok(())
    }

    fn seeds_of(&self, id: PodId) -> Result<(Arc<Netns>, Arc<Mutex<Seeds>>), BrokerError> {
        let pods = self.pods();
        let pod = pods.get(&id).ok_or(BrokerError::NotEnrolled(id))?;
        Ok((pod.namespace.clone(), pod.seeds.clone()))
    }

    fn write(&self, id: PodId, before: &Seeds, seeds: &mut Seeds) -> Result<(), BrokerError> {
        for port in before.ports().filter(|port| !seeds.has(*port)) {
            self.maps.unseed(id, port)?;
        }
        let is_new = |port: &u16| !before.has(*port) || before.waiting.contains(port);
        seeds.waiting = seeds.ports().filter(is_new).collect();
        self.write_waiting(id, seeds);
        Ok(())
    }

    fn write_waiting(&self, id: PodId, seeds: &mut Seeds) {
        seeds.waiting = self.maps.seed(id, std::mem::take(&mut seeds.waiting).into_iter());
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
        sockets(ports).into_iter().collect()
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
