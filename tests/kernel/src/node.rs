//! A node with a bridge and any number of places on it, inside a namespace of its own in which the test's program runs again.

use crate::{inside, ip};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
};
use tramline_node_agent::broker::{BrokerSettings, cgroup_root};

/// Set in the program that runs inside the node.
const INSIDE: &str = "TRAMLINE_TEST_INSIDE_NODE";

/// Runs the test of this name again inside a namespace; false inside it.
///
/// # Panics
/// It fails there.
pub fn is_outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let short = test.get(..4).unwrap_or(test);
    let name = format!("tln-{}-{short}", std::process::id());
    ip(&format!("netns add {name}"));
    ip(&format!("-n {name} link set lo up"));
    let (test, program) = (test.to_owned(), std::env::current_exe().expect("this program"));
    let status = inside(&Path::new("/run/netns").join(&name), move || {
        Command::new(program)
            .args(["--exact", &test, "--nocapture"])
            .env(INSIDE, "1")
            .status()
    });
    ip(&format!("netns del {name}"));
    assert!(status.expect("this program again").success());
    true
}

/// A node: its bridge, and a cgroup that this process joins.
pub struct Node {
    name: String,
    cgroup: PathBuf,
}

impl Node {
    /// Makes it out of the namespace this program runs in; `tag` tells it from others of this process.
    pub fn new(tag: &str) -> Self {
        let name = format!("tlk-{}-{tag}", std::process::id());
        ip("link add br0 type bridge mcast_snooping 0");
        ip("link set br0 up");
        let cgroup = cgroup_root().expect("cgroup2").join(&name);
        std::fs::create_dir(&cgroup).expect("cgroup");
        std::fs::write(cgroup.join("cgroup.procs"), "0").expect("join");
        Self { name, cgroup }
    }

    /// Settings of a broker for this node.
    pub fn settings(&self) -> BrokerSettings {
        BrokerSettings {
            bpffs: "/sys/fs/bpf".into(),
            instance: self.name.clone(),
            cgroup: self.cgroup.clone(),
            kubelet_cgroup: None,
            proc: "/proc".into(),
            succeeds: false,
        }
    }

    /// A namespace with these addresses on the node's bridge; `short` is its name, a few letters.
    pub fn place(&self, short: &str, addresses: &[IpAddr]) -> Place {
        let name = format!("{}-{short}", self.name);
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add v{short} type veth peer name eth0 netns {name}"
        ));
        ip(&format!("link set v{short} master br0"));
        ip(&format!("link set v{short} up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        for address in addresses {
            match address {
                IpAddr::V4(v4) => ip(&format!("-n {name} addr add {v4}/32 dev eth0")),
                IpAddr::V6(v6) => ip(&format!("-n {name} addr add {v6}/128 dev eth0 nodad")),
            }
        }
        // All are neighbours, whatever their networks.
        ip(&format!("-n {name} route add default dev eth0"));
        ip(&format!("-n {name} -6 route add default dev eth0"));
        Place::new(name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let root = cgroup_root().expect("cgroup2");
        let _ = std::fs::write(root.join("cgroup.procs"), "0");
        let _ = std::fs::remove_dir(&self.cgroup);
        let _ = std::fs::remove_dir_all(Path::new("/sys/fs/bpf/tramline").join(&self.name));
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// A namespace, and a thread that lives in it: to enter anew for each of thousands of connections takes longer than they do.
pub struct Place {
    name: String,
    jobs: mpsc::Sender<Job>,
}

impl Place {
    fn new(name: String) -> Self {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let netns = Path::new("/run/netns").join(&name);
        std::thread::spawn(move || {
            inside(&netns, move || {
                for job in waiting {
                    job();
                }
            });
        });
        Self { name, jobs }
    }

    /// Path of its network namespace.
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Runs `work` inside.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || drop(done.send(work())));
        self.jobs.send(job).expect("the thread inside");
        result.recv().expect("the thread inside")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}
