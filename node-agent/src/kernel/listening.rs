//! The table of ports on which pods listen: the programs count what they see, and the agent writes what they cannot have seen.
//! All pods share it.

use super::{
    KernelError,
    maps::{BPF_NOEXIST, Maps, absent_is_fine, lock, replace, unless_there},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};
use tramline_common::{
    PodId,
    map::{MAX_POD_ROWS, PodPort, direction, name},
};

impl Maps {
    /// Forgets which ports the pod listens on.
    pub(crate) fn clear_listening(&self, pod: PodId) -> Result<(), KernelError> {
        replace(&self.listening, name::LISTENING, |key| key.pod == pod, &[])
    }

    /// Ports whose row says that a socket listened there before the programs watched the pod. Walks the rows of all pods.
    pub(crate) fn seeded(&self, pod: PodId) -> BTreeSet<u16> {
        let keys = lock(&self.listening);
        let keys = keys.keys().filter_map(Result::ok);
        keys.filter(|key| key.pod == pod && key.direction == direction::SEEDED)
            .map(|key| key.port)
            .collect()
    }

    /// Whether the programs know of a socket of the pod that listens on the port, because they saw it begin.
    pub(crate) fn is_counted_listening(&self, pod: PodId, port: u16) -> bool {
        self.counted(pod, port).is_some_and(|count| count > 0)
    }

    /// Whether a socket of the pod has listened on the port since its enrolment: the row of one that stopped stays while a
    /// connection to it lives.
    pub(crate) fn has_listened(&self, pod: PodId, port: u16) -> bool {
        let seeded = PodPort::new(pod, port, direction::SEEDED);
        self.counted(pod, port).is_some() || lock(&self.listening).get(&seeded, 0).is_ok()
    }

    /// How many listening sockets of a port the programs have counted. Below zero where one ended that they had not: it is older
    /// than the row.
    fn counted(&self, pod: PodId, port: u16) -> Option<i64> {
        let key = PodPort::new(pod, port, direction::INBOUND);
        let count = lock(&self.listening).get(&key, 0);
        count.ok().map(u64::cast_signed)
    }

    /// Tells the programs of ports on which the pod listened before they watched it; answers with those for which the table
    /// has no row left.
    pub(crate) fn seed(&self, pod: PodId, ports: impl Iterator<Item = u16>) -> BTreeSet<u16> {
        let refused: BTreeSet<u16> = ports
            .filter(|port| {
                let key = PodPort::new(pod, *port, direction::SEEDED);
                lock(&self.listening).insert(key, 1, 0).is_err()
            })
            .collect();
        let number = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        self.listening_refused.fetch_add(number, Ordering::Relaxed);
        refused
    }

    /// Tells the programs of ports where nothing listens any more that did so before they watched the pod: these have a count of
    /// zero from then on, if there is room for it.
    ///
    /// Whoever calls this looks once more what listens: a socket that begins meanwhile may go uncounted.
    pub(crate) fn unseed(&self, pod: PodId, port: u16) -> Result<(), KernelError> {
        let counted = PodPort::new(pod, port, direction::INBOUND);
        let seeded = PodPort::new(pod, port, direction::SEEDED);
        let zero = |flags| lock(&self.listening).insert(counted, 0, flags);
        let inserted = unless_there(zero(BPF_NOEXIST), name::LISTENING);
        absent_is_fine(lock(&self.listening).remove(&seeded), name::LISTENING)?;
        if inserted.is_err() {
            // The row that went has left room for this one.
            return unless_there(zero(BPF_NOEXIST), name::LISTENING);
        }
        // A socket that was counted in a row of an earlier enrolment has been taken off this one.
        if self.counted(pod, port).is_some_and(|count| count < 0) {
            return unless_there(zero(0), name::LISTENING);
        }
        Ok(())
    }

    /// By pod, the ports of rows that count nothing. Walks the rows of all pods.
    pub(crate) fn idle_ports(&self) -> BTreeMap<PodId, BTreeSet<u16>> {
        let rows = lock(&self.listening);
        // A walk begins again where a row goes away under it.
        let rows = rows.iter().take(2 * MAX_POD_ROWS).filter_map(Result::ok);
        let mut idle: BTreeMap<PodId, BTreeSet<u16>> = BTreeMap::new();
        for (key, count) in rows {
            if key.direction == direction::INBOUND && count.cast_signed() <= 0 {
                idle.entry(key.pod).or_default().insert(key.port);
            }
        }
        idle
    }

    /// Removes a row that counts nothing.
    ///
    /// Whoever calls this looks once more what listens: a socket that begins meanwhile may be counted in the row that goes.
    pub(crate) fn remove_idle(&self, pod: PodId, port: u16) -> Result<(), KernelError> {
        if self.is_counted_listening(pod, port) {
            return Ok(());
        }
        let key = PodPort::new(pod, port, direction::INBOUND);
        absent_is_fine(lock(&self.listening).remove(&key), name::LISTENING)
    }
}
