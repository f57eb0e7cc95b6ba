//! When the way between two pods of a node is known to stay on it. Each row has a node of its own: a namespace in which
//! this program runs again.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use std::{net::IpAddr, path::Path, process::Command};
use tramline_common::map::plaintext;
use tramline_kernel_tests::{Pod, V4, node::is_outside, rows};
use tramline_node_agent::broker::{Broker, NotProven};

const OTHER_V4: &str = "10.99.0.3";
const OTHER_V6: &str = "fd99::3";
/// Interfaces of the node.
const OTHERS: &str = "other";

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {args}");
}

/// A pod with one interface, whose other end in the node is [`OTHERS`].
struct Other(String);

impl Other {
    fn new(pod: &Pod) -> Self {
        let name = format!("{}o", pod.name());
        ip(&format!("netns add {name}"));
        ip(&format!(
            "link add {OTHERS} type veth peer name eth0 netns {name}"
        ));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("link set {OTHERS} up"));
        ip(&format!("-n {name} addr add {OTHER_V4}/24 dev eth0"));
        ip(&format!("-n {name} -6 addr add {OTHER_V6}/64 dev eth0 nodad"));
        Self(name)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The node's end of the first pod's interface.
fn first(tag: &str) -> String {
    format!("h{}{tag}", std::process::id())
}

fn bridge(name: &str, port: &str) {
    let _ = Command::new("ip")
        .args(["link", "add", name, "type", "bridge"])
        .status();
    ip(&format!("link set {name} up"));
    ip(&format!("link set {port} master {name}"));
}

async fn proof(pod: &Pod, other: &Path, to: &str) -> Result<(), NotProven> {
    let broker = Broker::start(&pod.settings()).expect("broker");
    let rows = rows(plaintext::DROP);
    let from = broker.enroll(&pod.netns(), &rows).await.expect("enroll");
    let at = broker.enroll(other, &rows).await.expect("enroll");
    let to: IpAddr = to.parse().expect("address");
    let proof = broker
        .stays_on_node(from.id, at.id, to)
        .await
        .expect("both are enrolled");
    for id in [from.id, at.id] {
        broker.withdraw(id).expect("withdraw");
    }
    proof
}

fn other_at(other: &Other) -> std::path::PathBuf {
    Path::new("/run/netns").join(&other.0)
}

#[tokio::test]
async fn bridged() {
    if is_outside("bridged") {
        return;
    }
    let pod = Pod::new("a");
    let other = Other::new(&pod);
    bridge("br0", &first("a"));
    bridge("br0", OTHERS);
    for to in [OTHER_V4, OTHER_V6] {
        assert_eq!(proof(&pod, &other_at(&other), to).await, Ok(()), "{to}");
    }
    let nobody = proof(&pod, &other_at(&other), "10.99.0.77").await;
    assert_eq!(nobody, Err(NotProven::NoSuchAddress));

    // Not every kernel has it.
    let filtering = |on| {
        Command::new("ip")
            .args(["link", "set", "br0", "type", "bridge", "vlan_filtering", on])
            .status()
    };
    if filtering("1").expect("ip").success() {
        let apart = proof(&pod, &other_at(&other), OTHER_V4).await;
        assert_eq!(apart, Err(NotProven::VlanBridge));
        filtering("0").expect("ip");
    }

    // A port that leads off the node.
    // Not every kernel has each of them.
    let uplinks = [
        "type dummy",
        "type vxlan id 7 dstport 4789 local 127.0.0.1 remote 127.0.0.2",
    ];
    let uplink = uplinks.into_iter().find(|kind| {
        let add = format!("link add wire {kind}");
        Command::new("ip")
            .args(add.split(' '))
            .status()
            .expect("ip")
            .success()
    });
    if uplink.is_some() {
        ip("link set wire master br0");
        let flooded = proof(&pod, &other_at(&other), OTHER_V4).await;
        assert_eq!(flooded, Err(NotProven::Uplink));
        ip("link del wire");
        assert_eq!(proof(&pod, &other_at(&other), OTHER_V4).await, Ok(()));
    }

    // Two bridges, whatever joins them, though the node would route from the one to the other.
    bridge("br1", OTHERS);
    ip("addr add 10.99.0.9/24 dev br1");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("sysctl");
    let two = proof(&pod, &other_at(&other), OTHER_V4).await;
    assert_eq!(two, Err(NotProven::RoutedAway));
}

#[tokio::test]
async fn routed() {
    if is_outside("routed") {
        return;
    }
    let pod = Pod::new("b");
    let other = Other::new(&pod);
    let first = first("b");
    // As Amazon's CNI does it: everything by a gateway that is not there, the node has a route to each pod.
    for (netns, own) in [(pod.name().to_owned(), V4), (other.0.clone(), OTHER_V4)] {
        ip(&format!("-n {netns} addr flush dev eth0"));
        ip(&format!("-n {netns} addr add {own}/32 dev eth0"));
        ip(&format!("-n {netns} route add 169.254.1.1 dev eth0"));
        ip(&format!("-n {netns} route add default via 169.254.1.1 dev eth0"));
    }
    ip(&format!("route add {V4} dev {first}"));
    let unknown = proof(&pod, &other_at(&other), OTHER_V4).await;
    assert_eq!(unknown, Err(NotProven::RoutedAway), "the node has no route");
    ip(&format!("route add {OTHER_V4} dev {OTHERS}"));
    let still = proof(&pod, &other_at(&other), OTHER_V4).await;
    assert_eq!(still, Err(NotProven::RoutedAway), "the node does not forward");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("sysctl");
    assert_eq!(proof(&pod, &other_at(&other), OTHER_V4).await, Ok(()));

    // A branch interface: what comes from this pod has a table of its own, which leads off the node.
    ip("link add off type veth peer name wire");
    ip("addr add 10.98.7.1/24 dev off");
    ip("link set off up");
    ip("link set wire up");
    ip("route add default via 10.98.7.9 dev off table 101");
    ip(&format!("rule add iif {first} lookup 101 priority 10"));
    let away = proof(&pod, &other_at(&other), OTHER_V4).await;
    assert_eq!(away, Err(NotProven::RoutedAway));
    ip(&format!("rule del iif {first} lookup 101 priority 10"));
    assert_eq!(proof(&pod, &other_at(&other), OTHER_V4).await, Ok(()));
    // The same of the other pod: what is sent there stays, what it answers does not.
    ip(&format!("rule add iif {OTHERS} lookup 101 priority 10"));
    let answers = proof(&pod, &other_at(&other), OTHER_V4).await;
    assert_eq!(answers, Err(NotProven::AnswersLeave));
    ip(&format!("rule del iif {OTHERS} lookup 101 priority 10"));
    assert_eq!(proof(&pod, &other_at(&other), OTHER_V4).await, Ok(()));
    // By a gateway to the destination's interface is not to the destination.
    ip(&format!("route replace {OTHER_V4} via 10.98.7.9 dev off"));
    let away = proof(&pod, &other_at(&other), OTHER_V4).await;
    assert_eq!(away, Err(NotProven::RoutedAway));
}

/// A destination that answers by another interface than the one it is asked by.
#[tokio::test]
async fn answered_by_a_second_interface() {
    if is_outside("answered_by_a_second_interface") {
        return;
    }
    let pod = Pod::new("d");
    let other = Other::new(&pod);
    bridge("br0", &first("d"));
    bridge("br0", OTHERS);
    assert_eq!(proof(&pod, &other_at(&other), OTHER_V4).await, Ok(()));
    ip(&format!(
        "link add second type veth peer name eth1 netns {}",
        other.0
    ));
    ip(&format!("-n {} link set eth1 up", other.0));
    ip("link set second up");
    for (own, to) in [(OTHER_V4, V4), (OTHER_V6, tramline_kernel_tests::V6)] {
        let family = if to.contains(':') { "-6 " } else { "" };
        ip(&format!("-n {} {family}route add {to} dev eth1", other.0));
        let answers = proof(&pod, &other_at(&other), own).await;
        assert_eq!(answers, Err(NotProven::AnswersLeave), "{to}");
        // Only for what it sends from this address.
        ip(&format!("-n {} {family}route del {to} dev eth1", other.0));
        ip(&format!(
            "-n {} {family}route add {to} dev eth1 table 101",
            other.0
        ));
        ip(&format!(
            "-n {} {family}rule add from {own} lookup 101 priority 10",
            other.0
        ));
        let answers = proof(&pod, &other_at(&other), own).await;
        assert_eq!(answers, Err(NotProven::AnswersLeave), "{to} by its rule");
        ip(&format!(
            "-n {} {family}rule del from {own} lookup 101 priority 10",
            other.0
        ));
        assert_eq!(proof(&pod, &other_at(&other), own).await, Ok(()), "{to}");
    }
}

/// A rule about the destination's interface is among the changes after which ways are proven anew.
#[tokio::test]
async fn a_rule_for_the_answers_is_noticed() {
    if is_outside("a_rule_for_the_answers_is_noticed") {
        return;
    }
    let pod = Pod::new("e");
    let other = Other::new(&pod);
    ip(&format!("route add {V4} dev {}", first("e")));
    ip(&format!("route add {OTHER_V4} dev {OTHERS}"));
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("sysctl");
    // Not neighbours: each by a gateway that is not there.
    for (netns, own) in [(pod.name().to_owned(), V4), (other.0.clone(), OTHER_V4)] {
        ip(&format!("-n {netns} addr flush dev eth0"));
        ip(&format!("-n {netns} addr add {own}/32 dev eth0"));
        ip(&format!("-n {netns} route add 169.254.1.1 dev eth0"));
        ip(&format!("-n {netns} route add default via 169.254.1.1 dev eth0"));
    }
    let broker = Broker::start(&pod.settings()).expect("broker");
    let rows = rows(plaintext::DROP);
    let from = broker.enroll(&pod.netns(), &rows).await.expect("enroll");
    let at = broker.enroll(&other_at(&other), &rows).await.expect("enroll");
    let to: IpAddr = OTHER_V4.parse().expect("address");
    let proof = async || {
        let proof = broker.stays_on_node(from.id, at.id, to).await;
        proof.expect("both are enrolled")
    };
    let mut changes = broker.topology_changes().expect("netlink");
    assert_eq!(proof().await, Ok(()));
    ip("route add unreachable default table 101");
    ip(&format!("rule add iif {OTHERS} lookup 101 priority 10"));
    let noticed = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        loop {
            changes.recv().await.expect("a change");
            if proof().await == Err(NotProven::AnswersLeave) {
                return;
            }
        }
    });
    noticed.await.expect("the rule is noticed");
    for id in [from.id, at.id] {
        broker.withdraw(id).expect("withdraw");
    }
}

#[tokio::test]
async fn joined() {
    if is_outside("joined") {
        return;
    }
    let pod = Pod::new("c");
    let neighbour = pod.neighbour();
    let to = tramline_kernel_tests::NEIGHBOUR_V4;
    assert_eq!(proof(&pod, &neighbour.netns(), to).await, Ok(()));
    // The same addresses, but the interface leads to somebody else, who has interfaces of the same numbers.
    let other = Other::new(&pod);
    ip(&format!("-n {} addr add {to}/24 dev eth0", other.0));
    assert_eq!(
        proof(&pod, &other_at(&other), to).await,
        Err(NotProven::Elsewhere)
    );
}
