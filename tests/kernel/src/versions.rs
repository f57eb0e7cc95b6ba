//! Two versions of the agent that have different layouts of maps, behind one interface: the present one and the one of
//! `tests/next`. Each speaks of plaintext in numbers of its own.

use crate::Pod;
use std::{
    any::Any,
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    path::Path,
};
use tramline_common::PodId;

/// The present version's broker.
pub type Now = tramline_node_agent::broker::Broker;
/// The next version's.
pub type Next = tramline_next::broker::Broker;

/// A port that every pod's connects to bypass the mesh.
pub const EXCLUDED: u16 = 4445;

/// What a pod does with plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Takes it.
    Open,
    /// Refuses it.
    Closed,
}

/// An enrolled pod of either version.
pub struct Held {
    /// The pod.
    pub id: PodId,
    /// Where what it dials arrives.
    pub outbound: Vec<TcpListener>,
    /// The agent's part of it.
    _rest: Box<dyn Any + Send>,
}

/// A broker of either version, as the agent uses it.
pub trait Agent: Sized + Send + 'static {
    /// Loads its programs; `succeeds` an agent that has stepped aside.
    fn begin(pod: &Pod, succeeds: bool) -> Result<Self, String>;
    /// Whether the node's programs are another layout's still.
    fn waits(&self) -> bool;
    /// Tells its maps about a pod that is captured.
    fn describe(&self, netns: &Path, plaintext: Plaintext) -> impl Future<Output = ()>;
    /// Replaces so many of the node's programs.
    fn replace(&self, programs: usize);
    /// Enrols a pod.
    fn hold(&self, netns: &Path, plaintext: Plaintext) -> impl Future<Output = Result<Held, String>>;
    /// Cleans up after the agents before.
    fn tidy(&self);
    /// Leaves the kernel to a successor.
    fn leave(&self);
    /// Takes it back from one that is gone.
    fn come_back(&self, pods: &[PodId]) -> impl Future<Output = ()>;
    /// Lets a pod connect to another directly.
    fn let_pass(&self, from: PodId, to: PodId, dialled: SocketAddr);
    /// Makes verdicts of other layouts void.
    fn void(&self);
    /// The client's and server's ends of connections that pass by verdicts.
    fn passed(&self) -> Vec<(SocketAddr, SocketAddr)>;
    /// Ends all of them.
    fn cut_all(&self);
    /// One of the programs' counters.
    fn count(&self, name: &str) -> u64;

    /// All that an agent does from its start until it serves these pods.
    fn take_over(pods: &[&Path], pod: &Pod, succeeds: bool) -> impl Future<Output = (Self, Vec<Held>)> {
        async move {
            let agent = Self::begin(pod, succeeds).unwrap_or_else(|error| panic!("cannot start: {error}"));
            if agent.waits() {
                for netns in pods {
                    agent.describe(netns, Plaintext::Closed).await;
                }
                agent.replace(usize::MAX);
            }
            let mut held = Vec::new();
            for netns in pods {
                let enrolled = agent.hold(netns, Plaintext::Closed).await;
                held.push(enrolled.unwrap_or_else(|error| panic!("cannot enrol: {error}")));
            }
            agent.tidy();
            (agent, held)
        }
    }
}

macro_rules! agent {
    ($version:ident, $agent:ident, $common:ident) => {
        impl Agent for $agent::broker::Broker {
            fn begin(pod: &Pod, succeeds: bool) -> Result<Self, String> {
                let settings = pod.settings();
                let settings = $agent::broker::BrokerSettings {
                    bpffs: settings.bpffs,
                    instance: settings.instance,
                    cgroup: settings.cgroup,
                    kubelet_cgroup: settings.kubelet_cgroup,
                    proc: settings.proc,
                    succeeds,
                };
                Self::start(&settings).map_err(|error| error.to_string())
            }

            fn waits(&self) -> bool {
                self.waits_for_pods()
            }

            async fn describe(&self, netns: &Path, plaintext: Plaintext) {
                self.prepare(netns, &$version::rows(plaintext))
                    .await
                    .expect("prepare");
            }

            fn replace(&self, programs: usize) {
                self.attach_first(programs).expect("attach");
            }

            async fn hold(&self, netns: &Path, plaintext: Plaintext) -> Result<Held, String> {
                let enrolled = self.enroll(netns, &$version::rows(plaintext)).await;
                let mut enrolled = enrolled.map_err(|error| error.to_string())?;
                Ok(Held {
                    id: enrolled.id,
                    outbound: std::mem::take(&mut enrolled.listeners.outbound),
                    _rest: Box::new(enrolled),
                })
            }

            fn tidy(&self) {
                self.settle().expect("settle");
            }

            fn leave(&self) {
                self.step_aside();
            }

            async fn come_back(&self, pods: &[PodId]) {
                let rows: BTreeMap<_, _> = pods
                    .iter()
                    .map(|pod| (*pod, $version::rows(Plaintext::Closed)))
                    .collect();
                self.take_back(&rows).await.expect("take back");
                self.settle().expect("settle");
            }

            fn let_pass(&self, from: PodId, to: PodId, dialled: SocketAddr) {
                let versions = self
                    .versions(from, Some(to))
                    .expect("both pods have a version");
                let verdict = $agent::broker::KernelVerdict::Direct(to);
                self.set_verdict(from, dialled, verdict, versions)
                    .expect("verdict");
            }

            fn void(&self) {
                self.void_others().expect("void");
            }

            fn passed(&self) -> Vec<(SocketAddr, SocketAddr)> {
                let passed = self.passed().into_iter();
                passed
                    .map(|connection| (connection.client, connection.server))
                    .collect()
            }

            fn cut_all(&self) {
                for connection in self.passed() {
                    self.cut(&connection).expect("cut");
                }
            }

            fn count(&self, name: &str) -> u64 {
                let counters = self.counters();
                let found = counters.iter().find(|(event, _)| *event == name);
                found.map_or(0, |(_, count)| *count)
            }
        }

        mod $version {
            use super::Plaintext;
            use $agent::broker::PodRows;
            use $common::map::plaintext::{DROP, PASS};

            pub(super) fn rows(plaintext: Plaintext) -> PodRows {
                PodRows {
                    plaintext_default: match plaintext {
                        Plaintext::Open => PASS,
                        Plaintext::Closed => DROP,
                    },
                    excluded_outbound_ports: [super::EXCLUDED].into(),
                    ..PodRows::default()
                }
            }
        }
    };
}

agent!(now, tramline_node_agent, tramline_common);
agent!(next, tramline_next, tramline_next_common);
