//! A pod for tests of the eBPF programs: a namespace with `eth0`, a cgroup, and pins; all gone when dropped.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

pub mod node;
pub mod traffic;
pub mod two;
pub mod versions;

use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tramline_node_agent::broker::{BrokerSettings, PodRows};

/// One test at a time: the process joins the pod's cgroup.
static ALONE: Mutex<()> = Mutex::new(());

/// A namespace with `eth0` (one end of a veth pair), a cgroup that this process joins, and pins.
pub struct Pod {
    name: String,
    cgroup: PathBuf,
    instance: String,
    tag: String,
    _alone: MutexGuard<'static, ()>,
}

/// The pod's IPv4 address.
pub const V4: &str = "10.99.0.2";
/// The pod's IPv6 address.
pub const V6: &str = "fd99::2";

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {args}");
}

impl Pod {
    /// Makes a pod; `tag` is one or two letters.
    pub fn new(tag: &str) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("tlk-{}-{tag}", std::process::id());
        ip(&format!("netns add {name}"));
        let host = format!("{}{tag}", std::process::id());
        ip(&format!("link add h{host} type veth peer name eth0 netns {name}"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("link set h{host} up"));
        ip(&format!("-n {name} addr add {V4}/24 dev eth0"));
        ip(&format!("-n {name} -6 addr add {V6}/64 dev eth0 nodad"));
        ip(&format!("-n {name} route add default via 10.99.0.1"));
        ip(&format!("-n {name} -6 route add default via fd99::1"));
        let root = tramline_node_agent::broker::cgroup_root().expect("cgroup2");
        let cgroup = root.join(&name);
        std::fs::create_dir(&cgroup).expect("cgroup");
        std::fs::write(cgroup.join("cgroup.procs"), "0").expect("join");
        Self {
            instance: name.clone(),
            tag: tag.to_owned(),
            name,
            cgroup,
            _alone: alone,
        }
    }

    /// Name of its network namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of its network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Settings of a broker for this pod alone.
    pub fn settings(&self) -> BrokerSettings {
        BrokerSettings {
            bpffs: "/sys/fs/bpf".into(),
            instance: self.instance.clone(),
            cgroup: self.cgroup.clone(),
            kubelet_cgroup: None,
            proc: "/proc".into(),
            succeeds: false,
        }
    }

    /// The directory of its maps' pins.
    pub fn pinned_maps(&self) -> PathBuf {
        let contract = tramline_common::layout::CONTRACT_VERSION;
        let instance = Path::new("/sys/fs/bpf/tramline").join(&self.instance);
        instance.join(format!("v{contract}/maps"))
    }

    /// Gives the node's end of the veth pair an address in the pod's network, so that the node can dial the pod.
    pub fn reach_from_node(&self) {
        let device = format!("h{}{}", std::process::id(), self.tag);
        let _ = Command::new("ip")
            .args(["addr", "replace", "10.99.0.1/24", "dev", &device])
            .status();
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.netns(), work)
    }

    /// Sends what is for the neighbour to this hardware address; `None`: to the one that it says itself.
    pub fn believe_neighbour(&self, hardware: Option<&str>) {
        let what = match hardware {
            Some(address) => format!("replace {NEIGHBOUR_V4} dev eth1 nud permanent lladdr {address}"),
            None => format!("del {NEIGHBOUR_V4} dev eth1"),
        };
        ip(&format!("-n {} neigh {what}", self.name));
    }

    /// A second pod, joined to this one by a link of its own ([`NEIGHBOUR_V4`], [`NEIGHBOUR_V6`]).
    pub fn neighbour(&self) -> Neighbour {
        let name = format!("{}n", self.name);
        ip(&format!("netns add {name}"));
        ip(&format!(
            "-n {} link add eth1 type veth peer name eth0 netns {name}",
            self.name
        ));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {} link set eth1 up", self.name));
        ip(&format!("-n {} addr add 10.98.0.1/24 dev eth1", self.name));
        ip(&format!("-n {name} addr add {NEIGHBOUR_V4}/24 dev eth0"));
        ip(&format!("-n {} -6 addr add fd98::1/64 dev eth1 nodad", self.name));
        ip(&format!("-n {name} -6 addr add {NEIGHBOUR_V6}/64 dev eth0 nodad"));
        Neighbour { name }
    }
}

/// A pod beside another.
pub struct Neighbour {
    name: String,
}

/// The neighbour's address.
pub const NEIGHBOUR_V4: &str = "10.98.0.2";
/// The same in the other family.
pub const NEIGHBOUR_V6: &str = "fd98::2";

impl Neighbour {
    /// Path of its network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.netns(), work)
    }

    /// Sets its link `up` or `down`.
    pub fn link(&self, state: &str) {
        ip(&format!("-n {} link set eth0 {state}", self.name));
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs `work` on a thread of its own inside a namespace.
pub fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = File::open(netns).expect("netns");
    std::thread::spawn(move || {
        setns(netns, CloneFlags::CLONE_NEWNET).expect("setns");
        work()
    })
    .join()
    .expect("thread")
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
        let root = tramline_node_agent::broker::cgroup_root().expect("cgroup2");
        let _ = std::fs::write(root.join("cgroup.procs"), "0");
        let _ = std::fs::remove_dir(&self.cgroup);
        let _ = std::fs::remove_dir_all(Path::new("/sys/fs/bpf/tramline").join(&self.instance));
    }
}

/// Rows with one verdict for all plaintext.
pub fn rows(default: u32) -> PodRows {
    PodRows {
        plaintext_default: default,
        plaintext: BTreeMap::new(),
        ..PodRows::default()
    }
}
