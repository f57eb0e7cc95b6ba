//! The one interface to everything privileged: programs and maps, pods' namespaces, sockets made inside them.
//!
//! Arguments and results are plain data and descriptors, so that another process could serve it over a unix
//! socket with `SCM_RIGHTS`. The rest of the agent never enters a namespace and never opens a map.

mod enroll;
mod handover;
mod locality;
mod network;
mod open_sockets;
mod plaintext;
mod probe;
mod rows;
mod seeds;
mod services;
mod sockets;
mod verdicts;

pub(crate) use crate::kernel::load::Succession;
pub use crate::kernel::{KernelError, loads::EndpointLoads, maps::Fill};
pub use enroll::{Enrolled, Listeners};
pub(crate) use handover::Ring;
pub use locality::NotProven;
pub use open_sockets::OpenSocket;
pub use probe::checks;
pub use rows::PodRows;
pub use services::ServiceEndpoint;
pub use verdicts::{KernelVerdict, PassedConnection, Versions};

use crate::{
    kernel::{events::Events, load::Programs, maps::Maps, pins::Pins},
    sys::netns::Netns,
};
use nix::sys::statfs::{BPF_FS_MAGIC, CGROUP2_SUPER_MAGIC, statfs};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
};
use tramline_common::PodId;

/// Where the broker finds things.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    /// A mounted bpf filesystem.
    pub bpffs: PathBuf,
    /// Separates the pins of agents that share a machine.
    pub instance: String,
    /// The cgroup2 directory under which the pods' processes live, and the agent itself.
    pub cgroup: PathBuf,
    /// The kubelet's cgroup: its health checks then reach pods that refuse plaintext.
    pub kubelet_cgroup: Option<PathBuf>,
    /// The host's `/proc`: a container's own `/proc/sys` is read-only.
    pub proc: PathBuf,
    /// A predecessor lives and has been asked to step aside: wait until it has.
    pub succeeds: bool,
}

/// What a privileged act can fail with.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// eBPF refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The namespace cannot be used.
    #[error("network namespace {path}: {source}")]
    Namespace {
        /// The file given for the pod.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The namespace is the agent's own: a hostNetwork pod, or a wrong annotation.
    #[error("{0} is the node's own network namespace: a hostNetwork pod cannot be enrolled")]
    HostNetwork(PathBuf),
    /// Another workload has this namespace.
    #[error("{0} is the network namespace of another enrolled pod: each pod needs one of its own")]
    AlreadyEnrolled(PathBuf),
    /// The pod forwards packets: its addresses do not tell who speaks.
    #[error(
        "the pod forwards packets of others (net.ipv4.ip_forward or net.ipv6.conf.all.forwarding): it cannot be enrolled"
    )]
    Forwards,
    /// The pod has interfaces for guests of its own.
    #[error(
        "the pod has interface {0} for virtual machines or containers of its own (KubeVirt, Kata, docker in docker): \
             what they send does not come from the pod's sockets, so it cannot be enrolled"
    )]
    Foreign(String),
    /// The pod has no address yet.
    #[error("the pod's namespace has no address on any interface but lo")]
    NoAddress,
    /// A step of preparing the namespace failed.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Netlink refused.
    #[error("{step}: {source}")]
    Netlink {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// An earlier agent's programs are attached, which ask other maps than this one writes.
    #[error("the node's programs are still those of an agent with another layout of maps")]
    OtherLayout,
    /// The pod is not enrolled.
    #[error("pod {0:#x} is not enrolled")]
    NotEnrolled(PodId),
}

/// Serves privileged acts in this process.
pub struct Broker {
    home: Netns,
    proc: PathBuf,
    programs: Programs,
    maps: Maps,
    pods: Mutex<HashMap<PodId, enroll::Pod>>,
    generation: AtomicU64,
    /// How often a listening socket had found no row, when that was last looked at.
    listening_refused: AtomicU64,
    /// The highest version given to a pod.
    version: AtomicU64,
    /// Programs of an earlier agent may be attached, and maps be there that nothing uses.
    unsettled: AtomicBool,
}

impl Broker {
    /// Loads the programs and attaches them to the node's cgroup, taking over from an earlier agent. Where that one has
    /// captured pods by maps of another layout, they are attached by [`Self::attach`], after [`Self::prepare`] for each pod.
    pub fn start(settings: &BrokerSettings) -> Result<Self, BrokerError> {
        let own = Path::new("/proc/self/ns/net");
        let home = Netns::of_this_process().map_err(|source| BrokerError::Namespace {
            path: own.to_owned(),
            source,
        })?;
        check_mounts(settings)?;
        let create = || Pins::create(&settings.bpffs, &settings.instance);
        let pins = if settings.succeeds {
            handover::when_free(create)?
        } else {
            create()?
        };
        let own_cookie = home.cookie(&home).map_err(|source| BrokerError::Namespace {
            path: own.to_owned(),
            source,
        })?;
        let kubelet = settings.kubelet_cgroup.as_deref();
        let (programs, maps) = Programs::start(pins, &settings.cgroup, kubelet, own_cookie)?;
        Ok(Self {
            home,
            proc: settings.proc.clone(),
            programs,
            maps,
            pods: Mutex::default(),
            generation: AtomicU64::new(1),
            listening_refused: AtomicU64::new(0),
            version: AtomicU64::new(1),
            unsettled: AtomicBool::new(true),
        })
    }

    /// Sums of the programs' counters, by name.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.maps.counters()
    }

    /// How full the maps are.
    pub fn fill(&self) -> Vec<Fill> {
        self.maps.fill()
    }

    /// What the maps can take, by name; unlike [`Self::fill`] this costs nothing.
    pub fn capacities(&self) -> Vec<(&'static str, usize)> {
        Maps::capacities()
    }

    /// Writes the programs' diagnostics to the log, where the object was built with them.
    pub(crate) async fn log_diagnostics(&self) -> io::Result<()> {
        match self.programs.diagnostics() {
            Some(logger) => crate::kernel::diagnostics::log(logger).await,
            None => Ok(()),
        }
    }

    /// The programs' events; once, inside a runtime.
    pub(crate) fn events(&self) -> Option<io::Result<Events>> {
        self.maps.take_events().map(Events::new)
    }

    /// Pods that an earlier agent steered and this one has not enrolled.
    pub fn left_over(&self) -> Result<Vec<PodId>, BrokerError> {
        let enrolled = self.pods();
        Ok(self
            .programs
            .steered()?
            .into_iter()
            .filter(|pod| !enrolled.contains_key(pod))
            .collect())
    }

    fn pods(&self) -> std::sync::MutexGuard<'_, HashMap<PodId, enroll::Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the kernel would say with a number, said with the flag that is wrong.
fn check_mounts(settings: &BrokerSettings) -> Result<(), KernelError> {
    let is = |path: &Path, kind| statfs(path).is_ok_and(|found| found.filesystem_type() == kind);
    if !is(&settings.bpffs, BPF_FS_MAGIC) {
        return Err(KernelError::NoBpffs(settings.bpffs.clone()));
    }
    for cgroup in std::iter::once(&settings.cgroup).chain(&settings.kubelet_cgroup) {
        if !is(cgroup, CGROUP2_SUPER_MAGIC) {
            return Err(KernelError::NoCgroup(cgroup.clone()));
        }
    }
    Ok(())
}

/// The first cgroup2 mount, as `/proc/self/mountinfo` lists it.
pub fn cgroup_root() -> io::Result<PathBuf> {
    std::fs::read_to_string("/proc/self/mountinfo")?
        .lines()
        .filter_map(|line| {
            // "36 35 98:0 /root /mount options - type source superoptions" (proc(5)).
            let (left, right) = line.split_once(" - ")?;
            right
                .starts_with("cgroup2 ")
                .then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no cgroup2 filesystem is mounted"))
}
