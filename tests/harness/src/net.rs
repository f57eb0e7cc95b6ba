//! Nodes joined by a link, pods behind a bridge of their node; dual stack.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::capture::Capture;
use crate::process::{Place, Process};
use crate::run::Run;
use crate::{cgroup, netns, netns::Netns, programs};

/// The interface of a node towards the other node.
pub(crate) const LINK: &str = "link0";

/// One small data centre. Dropping it removes all of it.
#[derive(Debug)]
pub struct Net {
    nodes: Vec<Node>,
    processes: AtomicU32,
    next_host: u8,
    run: Run,
}

/// A node: a namespace with a bridge for its pods.
#[derive(Clone, Debug)]
pub struct Node {
    /// `node1`, `node2`.
    pub name: String,
    /// Counted from 1; in the addresses of its pods.
    pub number: u8,
    /// Its namespace.
    pub netns: Netns,
    /// The cgroup above its agent and pods: what the agent takes as the host's root.
    pub cgroup: PathBuf,
}

/// A pod: a namespace with one interface, and a cgroup.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The node it is on, by name.
    pub node: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its cgroup.
    pub cgroup: PathBuf,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its UID: another one for every pod that was ever made, also of the same name.
    pub uid: String,
    veth: String,
}

impl Pod {
    /// The address of `port` by IPv4.
    #[must_use]
    pub fn at4(&self, port: u16) -> SocketAddr {
        (self.v4, port).into()
    }

    /// The address of `port` by IPv6.
    #[must_use]
    pub fn at6(&self, port: u16) -> SocketAddr {
        (self.v6, port).into()
    }
}

impl Net {
    /// Makes `nodes` nodes (one or two), joined by a link.
    ///
    /// # Errors
    /// Not root, or the machine refuses something.
    pub fn new(kind: &str, nodes: u8) -> Result<Self> {
        if !(1..=2).contains(&nodes) {
            bail!("a net has one or two nodes, not {nodes}");
        }
        let run = Run::begin(kind)?;
        let mut net = Self {
            run,
            nodes: Vec::new(),
            processes: AtomicU32::new(0),
            next_host: 10,
        };
        for number in 1..=nodes {
            net.add_node(number)?;
        }
        if nodes == 2 {
            net.join()?;
        }
        Ok(net)
    }

    fn add_node(&mut self, number: u8) -> Result<()> {
        let name = format!("node{number}");
        let netns = Netns::create(&self.run.netns_name(&name))?;
        netns.sysctl("net/ipv4/ip_forward", "1")?;
        netns.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // An address of its own: else the bridge takes the lowest of its ports', and a pod that comes changes it under the
        // others, who go on sending to the old one until their neighbour entry has run out.
        netns.ip(&format!(
            "link add br0 address 02:77:00:00:00:{number:02x} type bridge\n\
             link set br0 up\n\
             addr add 10.77.{number}.1/24 dev br0\n\
             addr add fd77:{number}::1/64 dev br0 nodad\n"
        ))?;
        let cgroup = self.run.cgroup().join(&name);
        for part in ["", "agent", "host"] {
            fs::create_dir(cgroup.join(part)).with_context(|| format!("make a cgroup of {name}"))?;
        }
        self.nodes.push(Node {
            name,
            number,
            netns,
            cgroup,
        });
        Ok(())
    }

    fn join(&self) -> Result<()> {
        let [first, second] = self.nodes.as_slice() else {
            bail!("two nodes are joined, not more")
        };
        let peer = second.netns.name();
        first.netns.ip(&format!(
            "link add {LINK} type veth peer name {LINK} netns {peer}\n"
        ))?;
        for (node, other) in [(first, 2), (second, 1)] {
            let number = node.number;
            node.netns.ip(&format!(
                "addr add 10.78.0.{number}/24 dev {LINK}\n\
                 addr add fd78::{number}/64 dev {LINK} nodad\n\
                 link set {LINK} up\n\
                 route add 10.77.{other}.0/24 via 10.78.0.{other}\n\
                 route add fd77:{other}::/64 via fd78::{other}\n"
            ))?;
        }
        Ok(())
    }

    /// The run that all of this belongs to.
    #[must_use]
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Leaves everything in place, see [`Run::keep`].
    ///
    /// # Errors
    /// See [`Run::keep`].
    pub fn keep(&mut self) -> Result<()> {
        self.run.keep()
    }

    /// Removes everything now.
    ///
    /// # Errors
    /// See [`Run::end`].
    pub fn end(self) -> Result<()> {
        self.run.end()
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with this number, from 1.
    ///
    /// # Errors
    /// There is none.
    pub fn node(&self, number: u8) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|n| n.number == number)
            .with_context(|| format!("no node {number}"))
    }

    /// Makes a pod on a node, with addresses no pod of this net has had.
    ///
    /// # Errors
    /// The machine refuses something, or 245 pods were made.
    pub fn pod(&mut self, node: u8, name: &str) -> Result<Pod> {
        let host = self.next_host;
        self.next_host = host.checked_add(1).context("no address left for a pod")?;
        self.pod_at(node, name, host)
    }

    /// Makes a pod with a chosen last part of its addresses; that of a removed pod may be used again.
    ///
    /// # Errors
    /// The machine refuses something.
    pub fn pod_at(&mut self, node: u8, name: &str, host: u8) -> Result<Pod> {
        let node = self.node(node)?.clone();
        let n = node.number;
        let serial = self.processes.fetch_add(1, Ordering::Relaxed);
        let netns = Netns::create(&self.run.netns_name(name))?;
        let veth = format!("veth{serial}");
        let inside = netns.name();
        node.netns.ip(&format!(
            "link add {veth} mtu 1500 type veth peer name eth0 mtu 1500 netns {inside}\n\
             link set {veth} master br0\n\
             link set {veth} up\n"
        ))?;
        let v4 = Ipv4Addr::new(10, 77, n, host);
        let v6 = Ipv6Addr::new(0xfd77, u16::from(n), 0, 0, 0, 0, 0, u16::from(host));
        netns.ip(&format!(
            "addr add {v4}/24 dev eth0\n\
             addr add {v6}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via 10.77.{n}.1\n\
             route add default via fd77:{n}::1\n"
        ))?;
        let cgroup = node.cgroup.join(format!("pod-{name}"));
        fs::create_dir(&cgroup).with_context(|| format!("make the cgroup of {name}"))?;
        let uid = format!("00000000-0000-4000-8000-{}{serial:06x}", self.run.id());
        Ok(Pod {
            name: name.to_owned(),
            node: node.name,
            netns,
            cgroup,
            v4,
            v6,
            uid,
            veth,
        })
    }

    /// Moves a pod to a second bridge of its node, joined to the first: reached as before, but by another way.
    ///
    /// # Errors
    /// The machine refuses something.
    pub fn move_to_second_bridge(&self, pod: &Pod) -> Result<()> {
        let node = self.nodes.iter().find(|node| node.name == pod.node);
        let node = node.context("no such node")?;
        node.netns.ip(&format!(
            "link add br1 type bridge\n\
             link set br1 up\n\
             link add join0 type veth peer name join1\n\
             link set join0 master br0\n\
             link set join1 master br1\n\
             link set join0 up\n\
             link set join1 up\n\
             link set {} master br1\n",
            pod.veth
        ))
    }

    /// Removes a pod: its processes killed, its namespace and cgroup gone.
    ///
    /// # Errors
    /// Something stays.
    pub fn remove_pod(&self, pod: &Pod) -> Result<()> {
        cgroup::destroy(&pod.cgroup)?;
        if let Some(node) = self.nodes.iter().find(|n| n.name == pod.node) {
            // The veth goes with the namespace, but later and at the kernel's leisure: its address would linger.
            node.netns.ip(&format!("link del {}\n", pod.veth))?;
        }
        netns::delete(pod.netns.name())
    }

    /// Starts any program in a pod.
    ///
    /// # Errors
    /// See [`Process::start`].
    pub fn start(&self, pod: &Pod, program: &Path, args: &[String]) -> Result<Process> {
        self.start_in(&pod.netns, &pod.cgroup, &pod.name, program, args)
    }

    /// Starts any program on a node, outside of all pods and of the agent's cgroup.
    ///
    /// # Errors
    /// See [`Process::start`].
    pub fn start_on_node(&self, node: &Node, program: &Path, args: &[String]) -> Result<Process> {
        self.start_in(&node.netns, &node.cgroup.join("host"), &node.name, program, args)
    }

    /// Starts any program in a namespace and cgroup.
    ///
    /// # Errors
    /// See [`Process::start`].
    pub fn start_in(
        &self,
        netns: &Netns,
        cgroup: &Path,
        name: &str,
        program: &Path,
        args: &[String],
    ) -> Result<Process> {
        let serial = self.processes.fetch_add(1, Ordering::Relaxed);
        let what = program
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let logs = self.run.dir().join("logs");
        let place = Place {
            netns,
            cgroup,
            logs: &logs,
            name: format!("{name}-{serial}-{what}"),
        };
        Process::start(place, program, args)
    }

    /// Starts the test application in a pod; `args` as on its command line, split at blanks.
    ///
    /// # Errors
    /// See [`Process::start`].
    pub fn app(&self, pod: &Pod, args: &str) -> Result<Process> {
        self.start(pod, &programs::testapp()?, &words(args))
    }

    /// Starts a server of the test application in a pod and waits until it listens.
    ///
    /// # Errors
    /// It does not listen within ten seconds.
    pub fn serve(&self, pod: &Pod, args: &str) -> Result<Process> {
        let mut process = self.app(pod, args)?;
        process.wait_event("listening", Duration::from_secs(10))?;
        Ok(process)
    }

    /// Runs the test application in a pod to its end, at most a minute, and returns its lines.
    ///
    /// # Errors
    /// It ended badly or not in time.
    pub fn call(&self, pod: &Pod, args: &str) -> Result<Vec<Value>> {
        self.app(pod, args)?
            .finish(Duration::from_secs(60))
            .with_context(|| format!("{}: {args}", pod.name))
    }

    /// The only line of [`Net::call`].
    ///
    /// # Errors
    /// As [`Net::call`], or it wrote no line.
    pub fn call_one(&self, pod: &Pod, args: &str) -> Result<Value> {
        let lines = self.call(pod, args)?;
        lines
            .into_iter()
            .next_back()
            .with_context(|| format!("{}: {args}: no output", pod.name))
    }

    /// Begins to capture what crosses the link between the nodes.
    ///
    /// # Errors
    /// There is one node only, or tcpdump does not start.
    pub fn capture(&self) -> Result<Capture> {
        if self.nodes.len() < 2 {
            bail!("one node has no link to capture on");
        }
        self.capture_on(&self.node(1)?.netns, "host", LINK)
    }

    /// Begins to capture on an interface of a pod or node.
    ///
    /// # Errors
    /// tcpdump does not start.
    pub fn capture_on(&self, netns: &Netns, name: &str, interface: &str) -> Result<Capture> {
        let serial = self.processes.fetch_add(1, Ordering::Relaxed);
        let logs = self.run.dir().join("logs");
        let node = self.node(1)?;
        let cgroup = node.cgroup.join("host");
        let place = Place {
            netns,
            cgroup: &cgroup,
            logs: &logs,
            name: format!("{name}-{serial}-tcpdump"),
        };
        Capture::start(place, interface)
    }
}

fn words(args: &str) -> Vec<String> {
    args.split_whitespace().map(str::to_owned).collect()
}
