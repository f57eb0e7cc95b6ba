//! What would happen to a connection: one row per way in which it can go.

mod policies;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use tramline_core::authz::{Action, Rule, Target, TargetKind};
use tramline_core::explain::{
    Conclusion, Enrolment, Explanation, Node, QuestionError, Source, Verdict, capture, explain, resolve,
};
use tramline_core::mesh::Mesh;
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;
use tramline_core::reason::Reason;
use tramline_core::route::{Alike, Balance};
use tramline_core::service::Service;
use tramline_core::workload::{Workload, WorkloadUid};

use crate::make::{build, labels, namespace, peer_authentication, pod, policy, service, workload};

/// This node is `n1`; pod `a/broken` cannot be enrolled there.
struct Here;

impl Node for Here {
    fn enrolment(&self, workload: &Workload) -> Enrolment {
        match (&*workload.node, &*workload.name) {
            ("n1", "broken") => Enrolment::Failed("the pod forwards packets".into()),
            ("n1", "slow") => Enrolment::Pending,
            ("n1", _) => Enrolment::Done,
            _ => Enrolment::Elsewhere,
        }
    }

    fn balance<'a>(&'a self, _: &'a WorkloadUid) -> Box<dyn Balance + 'a> {
        Box::new(Alike)
    }

    fn never_captured(&self, address: IpAddr) -> Option<&'static str> {
        address.is_loopback().then_some("loopback")
    }
}

/// The endpoint on n1 could not be reached just now, the one on n2 has seven connections.
struct Busy;

impl Balance for Busy {
    fn load(&self, endpoint: SocketAddr) -> u64 {
        if endpoint.ip().to_string() == "10.0.2.1" {
            7
        } else {
            0
        }
    }

    fn is_avoided(&self, endpoint: SocketAddr) -> bool {
        endpoint.ip().to_string() == "10.0.1.2"
    }

    fn pinned(&self, _: IpAddr, _: &Service, _: u16) -> Option<SocketAddr> {
        None
    }
}

/// The same node, with some traffic.
struct BusyHere;

impl Node for BusyHere {
    fn enrolment(&self, workload: &Workload) -> Enrolment {
        Here.enrolment(workload)
    }

    fn balance<'a>(&'a self, _: &'a WorkloadUid) -> Box<dyn Balance + 'a> {
        Box::new(Busy)
    }

    fn never_captured(&self, address: IpAddr) -> Option<&'static str> {
        Here.never_captured(address)
    }
}

/// `a` is enrolled: `cli` dials, Service `web` stands before `web` (here) and `far` (on n2), `sick` is not ready.
fn objects() -> Objects {
    let mode = [("istio.io/dataplane-mode", "tramline")];
    let mut far = pod("a", "far", &["10.0.2.1", "fd00:2::1"]);
    far.node = "n2".into();
    let mut sick = pod("a", "sick", &["10.0.1.9"]);
    sick.ready = false;
    for pod in [&mut far, &mut sick] {
        pod.meta.labels = labels(&[("app", "web")]);
    }
    let mut host = pod("a", "host", &["192.168.0.1"]);
    host.host_network = true;
    let mut opted_out = pod("a", "opted-out", &["10.0.1.7"]);
    opted_out.meta.labels = labels(&[("istio.io/dataplane-mode", "none")]);
    let mut picky = pod("a", "picky", &["10.0.1.8"]);
    picky.meta.annotations = labels(&[
        ("tramline.dev/exclude-outbound-ports", "9100"),
        ("tramline.dev/exclude-outbound-cidrs", "10.0.2.0/24"),
        ("tramline.dev/exclude-inbound-ports", "9000"),
    ]);
    let mut slow = pod("a", "slow", &["10.0.1.11"]);
    slow.meta.annotations = labels(&[("tramline.dev/netns", "/run/netns/slow")]);
    let mut headless = service("a", "pods", &[], "web");
    headless.vips.clear();
    Objects {
        namespaces: vec![namespace("a", &mode), namespace("b", &[])],
        pods: vec![
            pod("a", "cli", &["10.0.1.1", "fd00:1::1"]),
            pod("a", "web", &["10.0.1.2", "fd00:1::2"]),
            far,
            sick,
            host,
            opted_out,
            picky,
            slow,
            pod("a", "broken", &["10.0.1.10"]),
            pod("b", "out", &["10.0.3.1"]),
        ],
        services: vec![
            service("a", "web", &["10.96.0.1", "fd96::1"], "web"),
            service("a", "none", &["10.96.0.2"], "nobody"),
            headless,
        ],
        ..Objects::default()
    }
}

fn ask(mesh: &Mesh, from: &str, to: &str) -> Explanation {
    ask_on(&Here, mesh, from, to)
}

fn ask_on(node: &dyn Node, mesh: &Mesh, from: &str, to: &str) -> Explanation {
    let source = Source::parse(mesh, from).unwrap();
    let destination = resolve(mesh, &source, to).unwrap();
    explain(mesh, node, &source, &destination)
}

fn answer(conclusion: &Conclusion) -> (Verdict, Reason) {
    (conclusion.verdict, conclusion.reason)
}

#[test]
fn each_way_a_connection_can_go() {
    let mesh = build(objects());
    use Reason::{
        CaptureLoop, ConnectRefused, ConnectUnreachable, NoHealthyEndpoint, Ok, UnknownServicePort,
    };
    use Verdict::{Allow, Unreachable};
    let rows = [
        // from, to, capture, first path, verdict, reason
        ("a/cli", "web:80", "captured", Some("same_node"), Allow, Ok),
        ("a/cli", "web.a:80", "captured", Some("same_node"), Allow, Ok),
        (
            "a/cli",
            "web.a.svc.cluster.local:80",
            "captured",
            Some("same_node"),
            Allow,
            Ok,
        ),
        ("a/cli", "10.96.0.1:80", "captured", Some("same_node"), Allow, Ok),
        ("a/cli", "[fd96::1]:80", "captured", Some("same_node"), Allow, Ok),
        ("a/cli", "pods:8080", "captured", Some("same_node"), Allow, Ok),
        (
            "a/cli",
            "web:81",
            "captured",
            None,
            Unreachable,
            UnknownServicePort,
        ),
        (
            "a/cli",
            "none:80",
            "captured",
            None,
            Unreachable,
            NoHealthyEndpoint,
        ),
        ("a/cli", "10.0.2.1:8080", "captured", Some("hbone"), Allow, Ok),
        ("a/cli", "a/far:8080", "captured", Some("hbone"), Allow, Ok),
        (
            "a/cli",
            "[::ffff:10.0.2.1]:8080",
            "captured",
            Some("hbone"),
            Allow,
            Ok,
        ),
        ("a/far", "a/cli:8080", "captured", Some("hbone"), Allow, Ok),
        (
            "a/cli",
            "a/web:15008",
            "captured",
            Some("same_node"),
            Unreachable,
            CaptureLoop,
        ),
        (
            "a/cli",
            "a/broken:80",
            "captured",
            Some("hbone"),
            Unreachable,
            ConnectRefused,
        ),
        ("a/cli", "b/out:80", "captured", Some("passthrough"), Allow, Ok),
        ("a/cli", "1.1.1.1:443", "captured", Some("passthrough"), Allow, Ok),
        ("a/cli", "127.0.0.1:80", "loopback", Some("plaintext"), Allow, Ok),
        ("a/cli", "a/cli:80", "own_address", Some("plaintext"), Allow, Ok),
        (
            "a/picky",
            "a/web:9100",
            "excluded_port",
            Some("plaintext"),
            Allow,
            Ok,
        ),
        (
            "a/picky",
            "a/far:80",
            "excluded_range",
            Some("plaintext"),
            Allow,
            Ok,
        ),
        (
            "a/picky",
            "[fd00:1::2]:80",
            "captured",
            Some("same_node"),
            Unreachable,
            ConnectUnreachable,
        ),
        (
            "a/broken",
            "a/web:80",
            "enrolment_failed",
            Some("plaintext"),
            Allow,
            Ok,
        ),
        (
            "a/slow",
            "a/web:80",
            "enrolment_pending",
            Some("plaintext"),
            Allow,
            Ok,
        ),
        ("a/host", "a/web:80", "host_network", Some("plaintext"), Allow, Ok),
        (
            "a/opted-out",
            "a/web:80",
            "opted_out",
            Some("plaintext"),
            Allow,
            Ok,
        ),
        ("b/out", "web.a:80", "not_labelled", Some("plaintext"), Allow, Ok),
        (
            "b/out",
            "none.a:80",
            "not_labelled",
            None,
            Unreachable,
            NoHealthyEndpoint,
        ),
        ("172.16.0.1", "a/web:80", "outside", Some("plaintext"), Allow, Ok),
        ("10.0.1.1", "a/web:80", "captured", Some("same_node"), Allow, Ok),
    ];
    for (from, to, captured, path, verdict, reason) in rows {
        let said = ask(&mesh, from, to);
        let first = said.endpoints.iter().find(|step| step.left_out.is_none());
        let found = (
            said.capture.code,
            first.and_then(|step| step.path),
            said.conclusion.verdict,
            said.conclusion.reason,
        );
        assert_eq!(
            found,
            (captured, path, verdict, reason),
            "{from} to {to}: {said:#?}"
        );
        assert_eq!(said.capture.captured, captured == "captured", "{from} to {to}");
    }
}

#[test]
fn a_service_shows_every_endpoint_and_why_some_are_left_out() {
    let said = ask_on(&BusyHere, &build(objects()), "a/cli", "web:80");
    let steps: Vec<_> = said
        .endpoints
        .iter()
        .map(|step| (step.address.to_string(), step.left_out.as_deref()))
        .collect();
    let first = &said.endpoints[0];
    assert_eq!(
        (
            first.address.to_string().as_str(),
            first.connections,
            first.avoided
        ),
        ("10.0.2.1:8080", 7, false),
        "the balancer's own order"
    );
    assert!(said.endpoints[1].avoided, "{said:#?}");
    let other = Some("another address family than the one dialled");
    let mut eligible = steps
        .iter()
        .filter(|step| step.1.is_none())
        .map(|step| &*step.0)
        .collect::<Vec<_>>();
    eligible.sort_unstable();
    assert_eq!(eligible, ["10.0.1.2:8080", "10.0.2.1:8080"]);
    assert!(
        steps.contains(&("10.0.1.9:8080".into(), Some("not ready"))),
        "{steps:?}"
    );
    assert!(steps.contains(&("[fd00:2::1]:8080".into(), other)), "{steps:?}");
    assert_eq!(steps.len(), 5, "{steps:?}");
    assert_eq!(
        said.destination.service.as_deref(),
        Some("web.a.svc.cluster.local")
    );
}

#[test]
fn a_service_of_a_thousand_endpoints_is_explained_within_bounds() {
    let mut objects = objects();
    for index in 0..1000 {
        let mut more = pod(
            "a",
            &format!("more-{index}"),
            &[&format!("10.1.{}.{}", index / 250, index % 250 + 1)],
        );
        more.meta.labels = labels(&[("app", "web")]);
        objects.pods.push(more);
    }
    let said = ask(&build(objects), "a/cli", "web:80");
    assert_eq!(
        (
            said.endpoints.len(),
            said.endpoints.len() + said.endpoints_omitted
        ),
        (32, 1005)
    );
    assert_eq!(said.conclusion.verdict, Verdict::Allow);
}

#[test]
fn why_a_pod_is_not_captured_has_a_code_and_what_to_do() {
    let mut objects = objects();
    let mut other = pod("b", "other", &["10.0.3.2"]);
    other.meta.labels = labels(&[("istio.io/dataplane-mode", "ambient")]);
    objects.pods.push(other);
    let mesh = build(objects);
    for (uid, code, says) in [
        ("a/cli", "captured", ""),
        ("a/far", "captured", "node n2"),
        ("a/host", "host_network", "without hostNetwork"),
        ("a/opted-out", "opted_out", "remove that label"),
        ("b/other", "other_mesh", "istio.io/dataplane-mode: tramline"),
        ("b/out", "not_labelled", "istio.io/dataplane-mode: tramline"),
        ("a/broken", "enrolment_failed", "forwards packets"),
        ("a/slow", "enrolment_pending", "agent's log"),
    ] {
        let said = capture(&Here, workload(&mesh, uid));
        assert_eq!((said.code, said.captured), (code, code == "captured"), "{uid}");
        let all = format!("{} {}", said.text, said.fix.unwrap_or_default());
        assert!(all.contains(says), "{uid}: {all}");
    }

    /// Everything waits.
    struct Waiting(Cell<u32>);
    impl Node for Waiting {
        fn enrolment(&self, _: &Workload) -> Enrolment {
            self.0.set(self.0.get() + 1);
            Enrolment::Pending
        }
        fn balance<'a>(&'a self, _: &'a WorkloadUid) -> Box<dyn Balance + 'a> {
            Box::new(Alike)
        }
        fn never_captured(&self, _: IpAddr) -> Option<&'static str> {
            None
        }
    }
    let node = Waiting(Cell::new(0));
    let said = capture(&node, workload(&mesh, "a/cli"));
    assert_eq!((said.code, node.0.get()), ("no_network_namespace", 1));
    assert!(said.fix.unwrap().contains("tramline.dev/netns"));
}

#[test]
fn questions_that_mean_nothing_say_what_would() {
    let mesh = build(objects());
    let from = |text: &str| Source::parse(&mesh, text).unwrap_err();
    assert_eq!(from("a/nobody"), QuestionError::NoPod("a/nobody".into()));
    assert_eq!(from("cli"), QuestionError::NotASource("cli".into()));
    let inside = Source::parse(&mesh, "a/cli").unwrap();
    let outside = Source::parse(&mesh, "172.16.0.1").unwrap();
    let to = |source: &Source, text: &str| resolve(&mesh, source, text).unwrap_err().to_string();
    for bad in [
        "web",
        "web:",
        "web:0",
        "web:http",
        ":80",
        "10.0.0.1:0",
        "fd00::1:80:",
        "[web]:80",
        "web:80:80",
    ] {
        assert!(
            to(&inside, bad).contains("is not HOST:PORT"),
            "{bad}: {}",
            to(&inside, bad)
        );
    }
    assert!(to(&inside, "nothing:80").contains("no Service a/nothing"));
    assert!(to(&inside, "web.c:80").contains("no Service c/web"));
    assert!(to(&inside, "c/web:80").contains("no pod c/web"));
    assert!(to(&outside, "web:80").contains("needs its namespace"));
    assert!(resolve(&mesh, &outside, "web.a:80").is_ok());
}
