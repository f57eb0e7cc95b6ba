//! The kernel's side of an upgrade: an agent leaves pins and listeners to its successor, and takes them back if the
//! successor dies.
//!
//! Whoever holds the lock of the pins is the one who writes maps. Those of the same layout are shared. Where a layout has
//! changed, the successor has a map of its own: it writes into it what the node's programs will ask about the pods that are
//! captured ([`Broker::prepare`]), and only then puts its programs in the place of the others ([`Broker::attach`]). Until a pod is
//! enrolled, its own program is still the predecessor's, with the predecessor's maps. Listeners of the one who has
//! stepped aside stay open: a handshake that began at them ends at them.

use super::{
    Broker, BrokerError, KernelError, PodRows,
    enroll::Pod,
    network::{self, Network},
};
use crate::{
    kernel::{
        events::{Events, Passages},
        load::Succession,
    },
    sys::netns::Netns,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd as _,
    path::Path,
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

/// What the programs tell an agent through.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ring {
    /// Refusals.
    Events,
    /// Connections that the kernel lets pass.
    Passages,
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

    /// Whether the node's programs are those of an agent with another layout still, until [`Self::attach`].
    pub fn waits_for_pods(&self) -> bool {
        self.programs.wait_for_pods()
    }

    /// Writes what the node's programs will ask about the pod whose network namespace is at `path`, if an earlier agent
    /// captured it. A pod that this fails for is captured all the same: nothing of it is let pass then.
    pub async fn prepare(&self, path: &Path, rows: &PodRows) -> Result<(), BrokerError> {
        let in_namespace = |source| BrokerError::Namespace {
            path: path.to_owned(),
            source,
        };
        let namespace = Netns::open(path).map_err(in_namespace)?;
        let id = namespace.cookie(&self.home).map_err(in_namespace)?;
        if !self.programs.is_steered(id) {
            return Ok(());
        }
        self.describe(id, &namespace, rows).await
    }

    async fn describe(&self, id: PodId, namespace: &Netns, rows: &PodRows) -> Result<(), BrokerError> {
        let (network, _) = Network::open(namespace, &self.home)?;
        let addresses = network::addresses(&network.handle()).await?;
        self.set_addresses(id, &addresses)?;
        self.update(id, rows)
    }

    /// Puts the node's programs in the place of those that are attached.
    ///
    /// # Errors
    /// Then it is to be tried again: some of them may be there, the others are still those of the agent before.
    pub fn attach(&self) -> Result<(), BrokerError> {
        self.cover()?;
        Ok(self.programs.attach_to_node()?)
    }

    /// The same, but no further than so many programs: what an agent leaves that ends in between. For tests.
    #[doc(hidden)]
    pub fn attach_first(&self, programs: usize) -> Result<(), BrokerError> {
        self.cover()?;
        Ok(self.programs.attach_first(programs)?)
    }

    /// What is captured stays so whoever's programs ask, and nobody goes by verdicts of an agent that is not on duty.
    fn cover(&self) -> Result<(), BrokerError> {
        for id in self.programs.steered()? {
            self.maps.insert_pod_if_absent(id, map::Pod::new(0))?;
        }
        Ok(self.programs.void_others()?)
    }

    /// Called when the pods are enrolled: what another agent left of pods that this one could not enrol is closed, no program of
    /// an earlier agent stays attached, and maps that nothing uses any more go. Costs nothing once it is done.
    ///
    /// # Errors
    /// It is to be tried again; what could be closed is.
    pub fn settle(&self) -> Result<(), BrokerError> {
        if !self.unsettled.load(Ordering::Relaxed) {
            return Ok(());
        }
        let closed = self.each_of_others(|id| self.shut_or_release(id));
        for id in self.left_over()? {
            self.programs.steer_again(id)?;
        }
        closed?;
        if let Err(error) = self.programs.clean_up() {
            // They do nothing; the next agent removes them.
            tracing::warn!(%error, "maps of an earlier agent stay, which nothing uses");
        }
        self.unsettled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Whether [`Self::settle`] has something to do.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed)
    }

    /// A pod that is captured and not steered was let go by a successor whose maps are not these.
    fn shut_or_release(&self, id: PodId) -> Result<(), BrokerError> {
        if !self.programs.is_steered(id) && self.maps.captured().contains(&id) {
            self.withdraw(id)
        } else {
            self.shut(id)
        }
    }

    /// Makes every verdict void that programs of another layout go by.
    pub fn void_others(&self) -> Result<(), BrokerError> {
        Ok(self.programs.void_others()?)
    }

    /// Takes the versions of pods away that another agent captured and this one has not enrolled: nobody follows the
    /// configuration for what was left about them.
    ///
    /// # Errors
    /// Of one of them; the others have none.
    pub fn void_left_over(&self) -> Result<(), BrokerError> {
        self.each_of_others(|id| self.void_verdicts(id))
    }

    /// Of pods that are captured or have a version, those that this agent has not enrolled. From the maps alone: an agent that
    /// has no descriptor left to open anything with can do this.
    fn each_of_others(&self, act: impl Fn(PodId) -> Result<(), BrokerError>) -> Result<(), BrokerError> {
        let mut others = self.maps.captured();
        others.append(&mut self.maps.verdicts.with_version());
        let enrolled: BTreeSet<_> = self.pods().keys().copied().collect();
        let mut result = Ok(());
        for id in others.difference(&enrolled) {
            if let Err(error) = act(*id) {
                result = Err(error);
            }
        }
        result
    }

    /// Takes the kernel back from a successor that is gone: maps, programs and listeners. `rows` is what the present
    /// configuration says about the pods; one that it says nothing about takes no plaintext. Answers with those that it could
    /// not take back: they are closed, and to be enrolled anew.
    ///
    /// # Errors
    /// [`KernelError::InUse`] while the successor lives; anything else leaves the pods to be tried again.
    pub async fn take_back(&self, rows: &BTreeMap<PodId, PodRows>) -> Result<Vec<PodId>, BrokerError> {
        self.programs.take_back()?;
        self.unsettled.store(true, Ordering::Relaxed);
        let pods: Vec<PodId> = self.pods().keys().copied().collect();
        let (mut described, mut lost) = (Vec::new(), Vec::new());
        for id in pods {
            match self.describe_again(id, rows.get(&id)).await {
                Ok(()) => described.push(id),
                Err(error) => {
                    cannot_take_back(id, &error);
                    // What the successor left is not this agent's to follow.
                    if let Err(error) = self.shut(id) {
                        tracing::error!(%error, "cannot close a pod");
                    }
                    lost.push(id);
                }
            }
        }
        self.attach()?;
        for id in described {
            let steered = self
                .namespace(id)
                .and_then(|namespace| Ok(self.programs.steer(id, namespace.as_fd())?));
            if let Err(error) = steered {
                cannot_take_back(id, &error);
                lost.push(id);
            }
        }
        Ok(lost)
    }

    async fn describe_again(&self, id: PodId, rows: Option<&PodRows>) -> Result<(), BrokerError> {
        let namespace = self.namespace(id)?;
        let none = PodRows::default();
        self.describe(id, &namespace, rows.unwrap_or(&none)).await?;
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
        Ok(self.maps.insert_pod(id, map::Pod::new(generation))?)
    }

    /// Whether a successor's programs write to this agent's ring buffer.
    pub(crate) fn succession(&self, ring: Ring) -> Result<Succession, BrokerError> {
        Ok(self.programs.succession(match ring {
            Ring::Events => map::name::EVENTS,
            Ring::Passages => map::name::PASSAGES,
        })?)
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

fn cannot_take_back(id: PodId, error: &BrokerError) {
    tracing::warn!(pod = format!("{id:#x}"), %error, "cannot take a pod back");
}
