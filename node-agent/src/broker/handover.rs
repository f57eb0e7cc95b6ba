//! The kernel's side of an upgrade: an agent leaves pins and listeners to its successor, and takes them back if the
//! successor dies.
//!
//! The maps are shared, so whoever holds the lock of the pins is the one who writes them. Listeners of the one who has
//! stepped aside stay open: a handshake that began at them ends at them.

use super::{Broker, BrokerError, KernelError, enroll::Pod};
use crate::kernel::events::{Events, Passages};
use std::{
    io,
    os::fd::AsFd as _,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};
use tramline_common::{PodId, map};

/// A predecessor lets go within milliseconds; it may be in the middle of enrolling a pod.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

/// Tries again while another agent has the pins.
pub(super) fn when_free<T>(mut attempt: impl FnMut() -> Result<T, KernelError>) -> Result<T, KernelError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(KernelError::InUse(_)) if Instant::now() < deadline => thread::sleep(LOOK),
            done => return done,
        }
    }
}

impl Broker {
    /// Leaves the kernel to a successor: from now on nothing may be written until [`Self::take_back`].
    pub fn step_aside(&self) {
        self.programs.step_aside();
    }

    /// Whether nobody has the kernel, while this agent has not.
    pub fn is_free(&self) -> bool {
        self.programs.is_free()
    }

    /// Takes the kernel back from a successor that is gone: programs and listeners. The rows of the pods are the
    /// caller's to write again.
    ///
    /// # Errors
    /// [`KernelError::InUse`] while the successor lives; anything else leaves the pods to be tried again.
    pub async fn take_back(&self) -> Result<(), BrokerError> {
        self.programs.take_back()?;
        let pods: Vec<PodId> = self.pods().keys().copied().collect();
        for id in pods {
            if let Err(error) = self.take_back_pod(id).await {
                tracing::warn!(pod = format!("{id:#x}"), %error, "cannot take a pod back");
            }
        }
        Ok(())
    }

    async fn take_back_pod(&self, id: PodId) -> Result<(), BrokerError> {
        let namespace = self.namespace(id)?;
        let (network, _) = super::network::Network::open(&namespace, &self.home)?;
        let addresses = network.addresses().await?;
        self.set_addresses(id, &addresses)?;
        // What the successor decided, this agent has not.
        self.renew_version(id)?;
        let listeners = match self.pods().get(&id) {
            Some(Pod { listeners, .. }) => listeners.clone(),
            None => return Err(BrokerError::NotEnrolled(id)),
        };
        for (key, socket) in listeners.iter() {
            self.maps.set_listener(*key, socket)?;
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        self.programs.steer(id, namespace.as_fd())?;
        Ok(self.maps.insert_pod(id, map::Pod { generation })?)
    }

    /// Forgets a pod that left while a successor has the kernel.
    pub fn forget(&self, id: PodId) {
        self.pods().remove(&id);
    }

    /// The programs' events for one who has taken the kernel back; inside a runtime.
    pub(crate) fn events_again(&self) -> Result<io::Result<Events>, BrokerError> {
        Ok(Events::new(self.programs.reopen_events()?))
    }

    /// The connections that the kernel lets pass, for one who has taken the kernel back; inside a runtime.
    pub(crate) fn passages_again(&self) -> Result<io::Result<Passages>, BrokerError> {
        Ok(Passages::new(self.programs.reopen_passages()?))
    }
}
