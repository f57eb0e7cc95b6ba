//! What the story of a connection needs of the agent, and no more.

use crate::{
    balancer::Balancer,
    broker::Broker,
    current::Current,
    duty::Duty,
    identify::CertStore,
    observe::Observer,
    pods::{LocalPod, LocalPods},
    tunnel::{Handshakes, Pool, TunnelSettings, TunnelStats},
    verdicts::Verdicts,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// Shared by all connections.
pub(crate) struct Context {
    /// Name of this node.
    pub(crate) node: Arc<str>,
    /// Everything privileged.
    pub(crate) broker: Arc<Broker>,
    /// Whether this agent has the kernel, or its successor.
    pub(crate) duty: Duty,
    /// The configuration in force.
    pub(crate) mesh: Current,
    /// Certificates of this node's workloads.
    pub(crate) certificates: Arc<CertStore>,
    /// Which endpoints of Services are busy, failing, or a client's own.
    pub(crate) balancer: Balancer,
    /// Tunnels to other nodes.
    pub(crate) pool: Arc<Pool>,
    /// Bounds of tunnels.
    pub(crate) tunnel: TunnelSettings,
    /// Counts of tunnels.
    pub(crate) tunnel_stats: Arc<TunnelStats>,
    /// Peers that are not authenticated yet.
    pub(crate) handshakes: Arc<Handshakes>,
    /// Metrics, access log, table of connections.
    pub(crate) observer: Arc<Observer>,
    /// What the kernel decides by itself.
    pub(crate) verdicts: Verdicts,
    /// Enrolled pods of this node.
    pub(crate) pods: LocalPods,
    /// Connections that the agent carries at once, at most.
    pub(crate) slots: Arc<Semaphore>,
    /// Connections turned away because there was no slot.
    pub(crate) shed: AtomicU64,
    /// Waits.
    pub(crate) waits: Waits,
}

/// How long a connection waits for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// For an application of this node to accept.
    pub(crate) application: Duration,
    /// For the endpoints of a Service, however many of them are tried.
    pub(crate) service: Duration,
    /// For a destination outside the mesh; Linux itself gives up after 127 s, which no client of ours waits for.
    pub(crate) egress: Duration,
    /// For an agent that starts to enrol a pod of its node.
    pub(crate) enrolment: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            application: Duration::from_secs(5),
            service: Duration::from_secs(15),
            egress: Duration::from_secs(30),
            enrolment: Duration::from_secs(10),
        }
    }
}

impl Context {
    /// Counts a connection turned away at the door.
    pub(crate) fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// The enrolled pod of this node behind a workload of the snapshot, if it is one.
    pub(crate) fn local(&self, workload: &tramline_core::workload::Workload) -> Option<Arc<LocalPod>> {
        if workload.node == self.node {
            self.pods.get(&workload.uid)
        } else {
            None
        }
    }

    /// The pod that `find` finds, for which an agent that starts may wait: it enrols one after the other. No longer than
    /// `within`, and not at all once it has enrolled those that it can.
    pub(crate) async fn once_enrolled(
        &self,
        within: Duration,
        find: impl Fn(&LocalPods) -> Option<Arc<LocalPod>>,
    ) -> Option<Arc<LocalPod>> {
        tokio::select! {
            biased;
            pod = self.pods.once_there(&find) => Some(pod),
            // What was enrolled just before that is found.
            () = self.verdicts.wait_settled() => find(&self.pods),
            () = tokio::time::sleep(within) => None,
        }
    }
}
