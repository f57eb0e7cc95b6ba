//! Enrolment that fails or finds another namespace than before.

use std::{
    net::{TcpListener, TcpStream},
    process::Command,
    time::Duration,
};
use tramline_common::map::plaintext;
use tramline_kernel_tests::{Pod, V4, rows};
use tramline_node_agent::broker::{Broker, BrokerError, BrokerSettings};

const SOON: Duration = Duration::from_secs(2);

fn set_forwarding(pod: &Pod, value: &'static str) {
    let written = pod.inside(move || std::fs::write("/proc/sys/net/ipv4/ip_forward", value));
    assert!(written.is_ok(), "{written:?}");
}

#[tokio::test]
async fn two_workloads_cannot_share_a_namespace() {
    let pod = Pod::new("s");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let first = broker
        .enroll(&pod.netns(), &rows(plaintext::PASS))
        .await
        .expect("enroll");
    let second = broker.enroll(&pod.netns(), &rows(plaintext::PASS)).await;
    assert!(matches!(second, Err(BrokerError::AlreadyEnrolled(_))));
    // And the first is unharmed by the attempt.
    let listener = &first.listeners.outbound[0];
    listener.set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        let connect = scope
            .spawn(|| pod.inside(|| TcpStream::connect_timeout(&"10.96.0.10:80".parse().unwrap(), SOON)));
        listener.accept().expect("still captured");
        connect.join().unwrap().expect("connected");
    });
    broker.withdraw(first.id).expect("withdraw");
}

#[tokio::test]
async fn a_new_namespace_at_the_same_path_is_noticed() {
    let pod = Pod::new("t");
    let broker = Broker::start(&pod.settings()).expect("broker");
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::PASS))
        .await
        .expect("enroll");
    assert!(!broker.is_replaced(enrolled.id, &pod.netns()));
    let ip = |what: &str| {
        let name = pod.netns().file_name().unwrap().to_owned();
        assert!(
            Command::new("ip")
                .args(["netns", what])
                .arg(name)
                .status()
                .unwrap()
                .success()
        );
    };
    ip("del");
    assert!(
        !broker.is_replaced(enrolled.id, &pod.netns()),
        "a name that is gone says nothing about the namespace"
    );
    ip("add");
    assert!(broker.is_replaced(enrolled.id, &pod.netns()));
    assert_ne!(broker.id_at(&pod.netns()).expect("cookie"), enrolled.id);
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn a_failed_enrolment_undoes_itself_but_does_not_open_a_pod_that_was_captured() {
    let pod = Pod::new("u");
    pod.reach_from_node();
    let knock = || TcpStream::connect_timeout(&format!("{V4}:80").parse().unwrap(), SOON);
    let _app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let broker = Broker::start(&pod.settings()).expect("broker");
    set_forwarding(&pod, "1");
    let refused = broker.enroll(&pod.netns(), &rows(plaintext::DROP)).await;
    assert!(matches!(refused, Err(BrokerError::Forwards)));
    assert!(broker.left_over().expect("pins").is_empty());
    knock().expect("never enrolled, never captured");

    set_forwarding(&pod, "0");
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::DROP))
        .await
        .expect("enroll");
    let id = enrolled.id;
    knock().expect_err("captured");
    broker.update(id, &rows(plaintext::PASS)).expect("update");
    knock().expect("open");
    drop(enrolled);
    drop(broker);

    set_forwarding(&pod, "1");
    let broker = Broker::start(&pod.settings()).expect("the next agent");
    let refused = broker.enroll(&pod.netns(), &rows(plaintext::DROP)).await;
    assert!(matches!(refused, Err(BrokerError::Forwards)));
    assert_eq!(broker.left_over().expect("pins"), [id]);
    knock()
        .expect_err("nobody follows the configuration for a pod that cannot be enrolled again: it is closed");
    broker.withdraw(id).expect("withdraw");
}

#[tokio::test]
async fn closing_a_pod_refuses_all_plaintext() {
    let pod = Pod::new("v");
    pod.reach_from_node();
    let knock = || TcpStream::connect_timeout(&format!("{V4}:80").parse().unwrap(), SOON);
    let _app = pod.inside(|| TcpListener::bind("0.0.0.0:80").expect("bind"));
    let broker = Broker::start(&pod.settings()).expect("broker");
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::PASS))
        .await
        .expect("enroll");
    knock().expect("open");
    broker.refuse_plaintext(enrolled.id).expect("close");
    knock().expect_err("closed");
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn another_agent_of_the_same_instance_is_refused_and_another_cgroup_is_honoured() {
    let pod = Pod::new("x");
    let elsewhere = pod.settings().cgroup.join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("cgroup");
    let wrong = BrokerSettings {
        cgroup: elsewhere.clone(),
        ..pod.settings()
    };
    let broker = Broker::start(&wrong).expect("broker");
    let second = Broker::start(&pod.settings());
    assert!(
        matches!(second, Err(BrokerError::Kernel(_))),
        "the first has the pins"
    );
    drop(broker);

    let broker = Broker::start(&pod.settings()).expect("the next agent, told better");
    let enrolled = broker
        .enroll(&pod.netns(), &rows(plaintext::PASS))
        .await
        .expect("enroll");
    let listener = &enrolled.listeners.outbound[0];
    pod.inside(|| TcpStream::connect_timeout(&"10.96.0.10:80".parse().unwrap(), SOON))
        .expect("captured");
    listener.accept().expect("captured");
    broker.withdraw(enrolled.id).expect("withdraw");
    std::fs::remove_dir(&elsewhere).expect("cgroup");
}
