//! One random configuration, and what it allows, by the core and by the naive reading.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tramline_core::{
    authz::{Connection, decide},
    identity::TrustDomain,
    mesh::{Change, Mesh, MeshSettings},
    object::{Kind, Meta, Objects, Pod, ServiceObject, ServiceObjectPort, TargetPort},
    plaintext::{PlaintextVerdict, verdict},
    service::Distribution,
    verdict::{KernelVerdict, ServiceVerdict, kernel_verdict, service_verdict},
    workload::{Workload, WorkloadUid},
};
use tramline_fuzz::{
    mutate::{Random, mutate},
    world::{Asked, PODS, PORTS, TRUST_DOMAIN, World},
};

/// Service accounts and addresses of [`PODS`], such that the policies tell them apart.
pub const LIVES: [(&str, &str, &str); 4] = [
    ("a", "10.0.0.1", "fd00::1"),
    ("ab", "10.9.0.1", "fd00:9::1"),
    ("a", "10.8.0.1", "fd00:8::1"),
    ("b", "10.0.0.4", "fd00::4"),
];
/// Addresses of somebody outside the mesh.
pub const OUTSIDE: [&str; 4] = ["10.9.1.1", "10.7.0.1", "10.0.0.9", "fd00:9::9"];
/// The addresses of a Service before the pods of namespace `demo`, which are the first two, and before whoever joined them.
pub const SERVICE: [&str; 2] = ["10.96.0.1", "fd96::1"];
/// Its port; that of its pods changes.
pub const SERVICE_PORT: u16 = 81;
/// Ports on which every pod listens: those that the policies name, and one that they do not.
pub const LISTENING: [u16; 4] = [80, 8080, 9090, 1234];

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What a pod keeps out of the mesh.
#[derive(Clone, Copy, Debug, Default)]
pub struct Excluded {
    outbound_port: Option<u16>,
    inbound_port: Option<u16>,
    outbound_range: Option<&'static str>,
}

impl Excluded {
    fn random(random: &mut Random) -> Self {
        let mut port = || (random.below(2) == 0).then(|| PORTS[random.below(PORTS.len())]);
        let (outbound_port, inbound_port) = (port(), port());
        let ranges = ["10.9.0.0/16", "10.0.0.0/24", "fd00:8::/32", "fd00::1/128"];
        let range = (random.below(3) == 0).then(|| ranges[random.below(ranges.len())]);
        Self {
            outbound_port,
            inbound_port,
            outbound_range: range,
        }
    }

    fn annotate(&self, pod: &mut Pod) {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        let annotations = [
            ("exclude-outbound-ports", port(self.outbound_port)),
            ("exclude-inbound-ports", port(self.inbound_port)),
            ("exclude-outbound-cidrs", self.outbound_range.map(str::to_owned)),
        ];
        for (key, value) in annotations {
            if let Some(value) = value {
                let key = format!("tramline.dev/{key}");
                pod.meta.annotations.insert(key.into(), value.into());
            }
        }
    }
}

/// What the first address of [`OUTSIDE`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    Nobody,
    /// A pod of another node.
    Remote,
    /// A Service.
    Service,
    /// A pod that is not enrolled.
    Plaintext,
}

/// A configuration.
#[derive(Clone, Debug)]
pub struct State {
    world: World,
    excluded: [Excluded; 4],
    joined: Joined,
    /// Where the Service leads to.
    target: u16,
    pub objects: Arc<Objects>,
    pub mesh: Arc<Mesh>,
}

/// Of the corpus of the fuzz target `policy`: bytes at random mostly close everything, mutations of these are worth reading.
/// In the program, since a virtual machine has no directory of them.
const CORPUS: [&[u8]; 9] = [
    include_bytes!("../../../fuzz/corpus/policy/allow-by-address"),
    include_bytes!("../../../fuzz/corpus/policy/allow-one-account"),
    include_bytes!("../../../fuzz/corpus/policy/deny-a-port"),
    include_bytes!("../../../fuzz/corpus/policy/deny-by-address"),
    include_bytes!("../../../fuzz/corpus/policy/dry-run"),
    include_bytes!("../../../fuzz/corpus/policy/mixed-0"),
    include_bytes!("../../../fuzz/corpus/policy/mixed-4"),
    include_bytes!("../../../fuzz/corpus/policy/nothing"),
    include_bytes!("../../../fuzz/corpus/policy/strict-but-one-port"),
];

fn world(random: &mut Random) -> World {
    if random.below(3) == 0 {
        let bytes: Vec<u8> = (0..random.below(200)).map(|_| random.number() as u8).collect();
        return World::of(&bytes);
    }
    World::of(&mutate(random, &CORPUS, &[]))
}

impl State {
    /// A first configuration.
    pub fn first(random: &mut Random) -> Self {
        let world = world(random);
        let target = LISTENING[0];
        let objects = objects(&world, &[Excluded::default(); 4], Joined::Nobody, target);
        let settings = MeshSettings::new(TrustDomain::new(TRUST_DOMAIN).expect("a trust domain"), "n1");
        let mesh = Mesh::build(objects.clone(), &settings).expect("a mesh");
        Self {
            world,
            excluded: [Excluded::default(); 4],
            joined: Joined::Nobody,
            target,
            objects: Arc::new(objects),
            mesh: Arc::new(mesh),
        }
    }

    /// Another one that differs in policies, exclusions or the address outside, by the way a running agent takes it.
    pub fn next(&self, random: &mut Random) -> Self {
        let mut next = self.clone();
        match random.below(9) {
            0 => {
                let joined = [Joined::Nobody, Joined::Remote, Joined::Service, Joined::Plaintext];
                next.joined = joined[random.below(joined.len())];
            }
            1 | 2 => next.excluded[random.below(4)] = Excluded::random(random),
            3 => next.target = LISTENING[random.below(LISTENING.len())],
            _ => next.world = world(random),
        }
        let objects = objects(&next.world, &next.excluded, next.joined, next.target);
        let changes = changes(&self.objects, &objects);
        let mesh = self.mesh.apply(changes).expect("a mesh");
        next.objects = Arc::new(objects);
        next.mesh = Arc::new(mesh);
        next
    }
}

fn objects(world: &World, excluded: &[Excluded; 4], joined: Joined, target: u16) -> Objects {
    let mut objects = world.objects();
    for ((pod, (account, v4, v6)), excluded) in objects.pods.iter_mut().zip(LIVES).zip(excluded) {
        pod.service_account = Some(account.into());
        pod.addresses = vec![ip(v4), ip(v6)];
        excluded.annotate(pod);
        pod.meta.labels.insert("behind".into(), "service".into());
    }
    objects
        .services
        .push(service("demo", "all", &SERVICE, SERVICE_PORT, target));
    let address = ip(OUTSIDE[0]);
    match joined {
        Joined::Nobody => {}
        Joined::Remote | Joined::Plaintext => {
            let mut pod = objects.pods[0].clone();
            pod.meta = Meta::new(Kind::Pod, "demo", "joined");
            pod.meta.labels.insert("behind".into(), "service".into());
            if joined == Joined::Remote {
                let enrolled = ("istio.io/dataplane-mode".into(), "tramline".into());
                pod.meta.labels.extend([enrolled]);
                pod.node = "n2".into();
            }
            pod.addresses = vec![address];
            objects.pods.push(pod);
        }
        Joined::Service => {
            let other = service("demo", "joined", &OUTSIDE[..1], 80, target);
            objects.services.push(other);
        }
    }
    objects
}

fn service(namespace: &str, name: &str, vips: &[&str], port: u16, target: u16) -> ServiceObject {
    ServiceObject {
        meta: Meta::new(Kind::Service, namespace, name),
        vips: vips.iter().map(|vip| ip(vip)).collect(),
        ports: vec![ServiceObjectPort {
            name: "".into(),
            port,
            target: TargetPort::Number(target),
            app_protocol: None,
        }],
        selector: [("behind".into(), "service".into())].into(),
        publish_not_ready: false,
        node_local: false,
        session_affinity: None,
        distribution: Distribution::Anywhere,
    }
}

/// What leads from the one to the other.
fn changes(before: &Objects, after: &Objects) -> Vec<Change> {
    fn between<T: PartialEq>(
        before: &[T],
        after: &[T],
        same: impl Fn(&T, &T) -> bool,
        set: impl Fn(&T) -> Change,
        remove: impl Fn(&T) -> Change,
    ) -> Vec<Change> {
        let gone = before
            .iter()
            .filter(|old| !after.iter().any(|new| same(old, new)));
        let new = after.iter().filter(|new| !before.contains(new));
        gone.map(remove).chain(new.map(set)).collect()
    }
    let same = |a: &Meta, b: &Meta| a.object == b.object;
    let named = |meta: &Meta| (meta.object.namespace.clone(), meta.object.name.clone());
    let mut all = between(
        &before.pods,
        &after.pods,
        |a, b| same(&a.meta, &b.meta),
        |pod| Change::SetPod(Box::new(pod.clone())),
        |pod| {
            let (namespace, name) = named(&pod.meta);
            Change::RemovePod(namespace, name)
        },
    );
    all.extend(between(
        &before.services,
        &after.services,
        |a, b| same(&a.meta, &b.meta),
        |service| Change::SetService(Box::new(service.clone())),
        |service| {
            let (namespace, name) = named(&service.meta);
            Change::RemoveService(namespace, name)
        },
    ));
    all.extend(between(
        &before.authorization_policies,
        &after.authorization_policies,
        |a, b| same(&a.meta, &b.meta),
        |policy| Change::SetAuthorizationPolicy(Box::new(policy.clone())),
        |policy| Change::RemoveAuthorizationPolicy(tramline_core::authz::PolicyName::of(&policy.meta)),
    ));
    all.extend(between(
        &before.peer_authentications,
        &after.peer_authentications,
        |a, b| same(&a.meta, &b.meta),
        |policy| Change::SetPeerAuthentication(Box::new(policy.clone())),
        |policy| Change::RemovePeerAuthentication(tramline_core::authz::PolicyName::of(&policy.meta)),
    ));
    all
}

impl State {
    /// The workload of a pod.
    pub fn workload(&self, pod: usize) -> &Arc<Workload> {
        let (namespace, name) = PODS[pod];
        let uid = WorkloadUid::new(format!("{namespace}/{name}"));
        self.mesh.workload(&uid).expect("a pod")
    }

    /// Whether a pod takes a connection; `source` is the pod that is known to have opened it, `None` for plaintext. What the
    /// core and the naive reading say is the same, or this ends the test.
    pub fn allows(&self, source: Option<usize>, from: IpAddr, pod: usize, to: SocketAddr) -> bool {
        let destination = self.workload(pod);
        let identity = source.map(|source| self.workload(source).identity.clone());
        let connection = Connection {
            source: identity.as_ref(),
            source_address: from,
            destination,
            destination_address: to,
        };
        let core = decide(&self.mesh, &connection);
        let naive = self.world.allows(&Asked {
            peer: source.map(|source| (PODS[source].0, LIVES[source].0)),
            from,
            pod: PODS[pod],
            to: to.ip(),
            port: to.port(),
        });
        assert_eq!(
            core.is_allow(),
            naive,
            "{core}, {from} to {to} of {:?}",
            PODS[pod]
        );
        naive
    }

    /// What is projected for plaintext to a pod.
    pub fn plaintext(&self, pod: usize, port: u16) -> PlaintextVerdict {
        verdict(&self.mesh, self.workload(pod), port)
    }

    /// Whether a pod keeps its connections to there out of the mesh.
    pub fn excludes_outbound(&self, pod: usize, to: SocketAddr) -> bool {
        let capture = &self.workload(pod).capture;
        capture.outbound_ports.contains(&to.port())
            || capture
                .outbound_ranges
                .iter()
                .any(|range| range.contains(&to.ip()))
    }

    /// Whether a pod keeps this port of its own out of the mesh.
    pub fn excludes_inbound(&self, pod: usize, port: u16) -> bool {
        self.workload(pod).capture.inbound_ports.contains(&port)
    }

    /// Whether what a pod dials is outside of the mesh.
    pub fn is_outside(&self, pod: usize, to: SocketAddr) -> bool {
        kernel_verdict(&self.mesh, self.workload(pod), to) == Some(KernelVerdict::Outside)
    }

    /// Whether what is dialled is a Service, and what it leads a pod to.
    pub fn service(&self, pod: usize, to: SocketAddr) -> Option<ServiceVerdict> {
        service_verdict(&self.mesh, self.workload(pod), to)
    }

    /// Whether this is the address of a Service.
    pub fn is_service(&self, to: SocketAddr) -> bool {
        self.mesh.service_by_vip(to.ip()).is_some()
    }
}
