//! A pod's connect reaches the agent's listener with every address true, and nothing else changes.

use nix::sched::{CloneFlags, setns};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_node_agent::broker::{Broker, BrokerSettings, PodRows};

/// One test at a time: the process joins the pod's cgroup.
static ALONE: Mutex<()> = Mutex::new(());

/// A namespace with `eth0` (one end of a veth pair), a cgroup, and pins; all gone when dropped.
struct Pod {
    name: String,
    cgroup: PathBuf,
    instance: String,
    _alone: MutexGuard<'static, ()>,
}

const V4: &str = "10.99.0.2";
const V6: &str = "fd99::2";

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {args}");
}

impl Pod {
    fn new(tag: &str) -> Self {
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
            name,
            cgroup,
            _alone: alone,
        }
    }

    fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn settings(&self) -> BrokerSettings {
        BrokerSettings {
            bpffs: "/sys/fs/bpf".into(),
            instance: self.instance.clone(),
            cgroup: self.cgroup.clone(),
            proc: "/proc".into(),
        }
    }

    /// Runs `work` on a thread of its own inside the namespace.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let netns = File::open(self.netns()).expect("netns");
        std::thread::spawn(move || {
            setns(netns, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
        .join()
        .expect("thread")
    }
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

fn rows(default: u32) -> PodRows {
    PodRows {
        plaintext_default: default,
        plaintext: BTreeMap::new(),
        ..PodRows::default()
    }
}

#[tokio::test]
async fn a_connect_is_captured_with_true_addresses() {
    let pod = Pod::new("a");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let mut enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    assert!(enrolled.addresses.contains(&V4.parse::<IpAddr>().unwrap()));
    for (target, own) in [
        ("10.96.0.10:80", V4),
        ("[fd96::10]:8080", V6),
        ("[::ffff:10.96.0.11]:81", V4),
    ] {
        let target: SocketAddr = target.parse().unwrap();
        let listener = &enrolled.listeners.outbound[usize::from(own == V6)];
        listener.set_nonblocking(false).unwrap();
        let client = std::thread::spawn({
            let netns = File::open(pod.netns()).unwrap();
            move || {
                setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
                let mut stream =
                    TcpStream::connect_timeout(&target, Duration::from_secs(3)).expect("connect");
                assert_eq!(
                    stream.peer_addr().unwrap(),
                    target,
                    "getpeername is what was dialled"
                );
                stream.write_all(b"ping").unwrap();
                let mut answer = [0; 4];
                stream.read_exact(&mut answer).unwrap();
                (stream.local_addr().unwrap(), answer)
            }
        });
        let (mut accepted, from) = listener.accept().expect("accept");
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        assert_eq!(
            accepted.local_addr().unwrap(),
            canonical(target),
            "the local address is the original destination"
        );
        assert_eq!(from.ip(), own.parse::<IpAddr>().unwrap());
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).unwrap();
        accepted.write_all(b"pong").unwrap();
        let (local, answer) = client.join().unwrap();
        assert_eq!(canonical(local), from);
        assert_eq!(&answer, b"pong");
    }
    enrolled.address_changes.close();
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn a_delivery_reaches_the_application_from_the_clients_address_and_plaintext_does_not() {
    let pod = Pod::new("b");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let app = pod.inside(|| TcpListener::bind("0.0.0.0:5000").expect("bind"));
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    let client: SocketAddr = "10.99.7.7:40000".parse().unwrap();
    let target: SocketAddr = format!("{V4}:5000").parse().unwrap();
    let socket = broker.delivery_socket(enrolled.id, target.ip()).expect("socket");
    socket.set_nonblocking(false).unwrap();
    socket.bind(&client.into()).expect("bind to the client's address");
    socket
        .connect_timeout(&target.into(), Duration::from_secs(3))
        .expect("deliver");
    let (mut accepted, from) = app.accept().unwrap();
    assert_eq!(from, client);
    let mut stream: TcpStream = socket.into();
    stream.write_all(b"hello").unwrap();
    let mut bytes = [0; 5];
    accepted.read_exact(&mut bytes).unwrap();
    let filled = |broker: &Broker| {
        broker
            .fill()
            .into_iter()
            .find(|f| f.map == "REGISTRY")
            .unwrap()
            .entries
    };
    assert_eq!(filled(&broker), 1);
    drop(stream);
    drop(accepted);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(filled(&broker), 0, "the registry entry went with its socket");
    // A closed port answers a delivery at once, though the client's address is not local.
    let closed: SocketAddr = format!("{V4}:5001").parse().unwrap();
    let socket = broker.delivery_socket(enrolled.id, closed.ip()).expect("socket");
    socket.set_nonblocking(false).unwrap();
    socket
        .bind(&"10.99.7.7:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let error = socket
        .connect_timeout(&closed.into(), Duration::from_secs(3))
        .expect_err("nothing listens");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    broker.withdraw(enrolled.id).expect("withdraw");
}
