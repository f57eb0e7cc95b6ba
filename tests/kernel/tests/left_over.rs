//! What another agent has left about a pod does not hold where this one cannot take the pod over.
#![expect(
    clippy::expect_used,
    reason = "a broken machine ends the test with a backtrace"
)]

use std::{
    collections::BTreeMap,
    net::{TcpListener, TcpStream},
    time::Duration,
};
use tramline_common::{PodId, map::plaintext};
use tramline_kernel_tests::{Neighbour, Pod, rows, two::server};
use tramline_node_agent::broker::{Broker, BrokerSettings, Enrolled, KernelVerdict, PodRows};

/// Longer than it takes where somebody answers.
const SOON: Duration = Duration::from_secs(1);

/// Lets the pod dial the neighbour as one that is not of the mesh.
fn let_out(broker: &Broker, pod: PodId) {
    let versions = broker.versions(pod, None).expect("enrolled");
    broker
        .set_verdict(pod, server(), KernelVerdict::Outside, versions)
        .expect("verdict");
}

/// Whether the pod's connection arrives at the neighbour's application, without an agent.
fn gets_out(pod: &Pod, app: &TcpListener) -> bool {
    let client = pod.inside(|| TcpStream::connect_timeout(&server(), SOON));
    let arrived = app.accept().is_ok();
    drop(client);
    arrived
}

/// Whether the pod lets plaintext in.
fn is_open(pod: &Pod, neighbour: &Neighbour) -> bool {
    let _app = pod.inside(|| TcpListener::bind("10.98.0.1:81").expect("bind"));
    let to = "10.98.0.1:81".parse().expect("an address");
    neighbour
        .inside(move || TcpStream::connect_timeout(&to, SOON))
        .is_ok()
}

async fn enrol(broker: &Broker, pod: &Pod) -> Enrolled {
    broker
        .enroll(&pod.netns(), &rows(plaintext::PASS))
        .await
        .expect("enroll")
}

fn app(neighbour: &Neighbour) -> TcpListener {
    let app = neighbour.inside(|| TcpListener::bind(server()).expect("bind"));
    app.set_nonblocking(true).expect("option");
    app
}

#[tokio::test]
async fn a_pod_that_the_next_agent_does_not_enrol_is_closed_when_that_has_settled() {
    let pod = Pod::new("oa");
    let neighbour = pod.neighbour();
    let app = app(&neighbour);
    let broker = Broker::start(&pod.settings()).expect("broker");
    let enrolled = enrol(&broker, &pod).await;
    let_out(&broker, enrolled.id);
    assert!(gets_out(&pod, &app) && is_open(&pod, &neighbour));
    drop((broker, enrolled));

    let broker = Broker::start(&pod.settings()).expect("the next agent");
    assert!(gets_out(&pod, &app), "it may be enrolled yet");
    broker.settle().expect("settle");
    assert!(!gets_out(&pod, &app));
    assert!(!is_open(&pod, &neighbour));
    // Also where what was there is asked for.
    let enrolled = enrol(&broker, &pod).await;
    assert!(!gets_out(&pod, &app), "nothing was decided since");
    assert!(is_open(&pod, &neighbour));
    let_out(&broker, enrolled.id);
    assert!(gets_out(&pod, &app));
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn what_an_agent_without_a_configuration_finds_is_void() {
    let pod = Pod::new("ob");
    let neighbour = pod.neighbour();
    let app = app(&neighbour);
    let broker = Broker::start(&pod.settings()).expect("broker");
    let enrolled = enrol(&broker, &pod).await;
    let_out(&broker, enrolled.id);
    drop((broker, enrolled));
    let broker = Broker::start(&pod.settings()).expect("the next agent");
    broker.void_left_over().expect("void");
    assert!(!gets_out(&pod, &app));
    assert!(is_open(&pod, &neighbour), "as the agent before left it");
    let enrolled = enrol(&broker, &pod).await;
    let_out(&broker, enrolled.id);
    broker.void_left_over().expect("void");
    assert!(gets_out(&pod, &app), "it is this agent's own");
    broker.withdraw(enrolled.id).expect("withdraw");
}

#[tokio::test]
async fn a_pod_that_cannot_be_taken_back_from_a_successor_is_closed() {
    let pod = Pod::new("oc");
    let neighbour = pod.neighbour();
    let app = app(&neighbour);
    let old = Broker::start(&pod.settings()).expect("broker");
    let enrolled = enrol(&old, &pod).await;
    old.step_aside();
    let successor = BrokerSettings {
        succeeds: true,
        ..pod.settings()
    };
    let new = Broker::start(&successor).expect("successor");
    let by_new = enrol(&new, &pod).await;
    let_out(&new, by_new.id);
    assert!(gets_out(&pod, &app) && is_open(&pod, &neighbour));
    drop((new, by_new));

    // More rows than there is room for: it cannot be described to the old agent's programs.
    let many = PodRows {
        excluded_inbound_ports: (1..=u16::MAX).collect(),
        excluded_outbound_ports: (1..=u16::MAX).collect(),
        ..rows(plaintext::PASS)
    };
    let lost = old.take_back(&BTreeMap::from([(enrolled.id, many)])).await;
    assert_eq!(lost.expect("take back"), [enrolled.id]);
    assert!(!gets_out(&pod, &app), "the successor decided it");
    assert!(!is_open(&pod, &neighbour));
    // It can be enrolled anew.
    old.forget(enrolled.id);
    drop(enrolled);
    let enrolled = enrol(&old, &pod).await;
    assert!(is_open(&pod, &neighbour));
    old.withdraw(enrolled.id).expect("withdraw");
}
