//! 10,000 changes while others decide, by the agent and by what it left in a kernel: no decision that begins after an
//! acknowledgement is an older configuration's, and whoever such a change forbids is told.

use super::Current;
use crate::{
    duty::Duty,
    recheck::{Decided, Outside, relay_while_allowed, relay_while_outside},
    tunnel::RelayEnd,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tramline_core::{
    authz::{self, Action, AuthorizationPolicy, PolicyName, Rule},
    identity::TrustDomain,
    labels::Selector,
    mesh::{Basis, Change, Mesh, MeshSettings},
    object::{Kind, Meta, Objects, Pod},
    reason::Reason,
    workload::WorkloadUid,
};

const CHANGES: u64 = 10_000;
const DECIDING: usize = 4;
const LIVE: usize = 8;
const SOON: Duration = Duration::from_secs(20);

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

fn pod(name: &str, address: IpAddr) -> Pod {
    let mut meta = Meta::new(Kind::Pod, "a", name);
    let labels = [("app", name), ("istio.io/dataplane-mode", "tramline")];
    meta.labels = labels.map(|(key, value)| (key.into(), value.into())).into();
    Pod {
        meta,
        deleting: false,
        owner: None,
        node: "n1".into(),
        service_account: None,
        host_network: false,
        ports: Vec::new(),
        addresses: vec![address],
        ended: false,
        ready: true,
    }
}

/// Of four generations one closes the server, one opens it, and two are somebody else's affair.
fn is_open(generation: u64) -> bool {
    generation % 4 < 2
}

fn policy_name(generation: u64) -> String {
    format!("of-{generation}")
}

fn first() -> Mesh {
    let objects = Objects {
        pods: vec![pod("client", CLIENT), pod("server", SERVER)],
        ..Objects::default()
    };
    let settings = MeshSettings::new(TrustDomain::new("td").unwrap(), "n1");
    Mesh::build(objects, &settings).unwrap()
}

fn next(mesh: &Mesh) -> Mesh {
    let generation = mesh.generation() + 1;
    let closed = |app: &str| {
        let meta = Meta::new(Kind::AuthorizationPolicy, "a", &policy_name(generation));
        let selector = Selector::new([("app".into(), app.into())].into());
        let policy = AuthorizationPolicy::new(meta, selector, Action::Deny, vec![Rule::default()]);
        Change::SetAuthorizationPolicy(Box::new(policy))
    };
    let gone = |generation| {
        let meta = Meta::new(Kind::AuthorizationPolicy, "a", &policy_name(generation));
        Change::RemoveAuthorizationPolicy(PolicyName::of(&meta))
    };
    let change = match generation % 4 {
        0 => gone(generation - 2),
        1 => closed("client"),
        2 => closed("server"),
        _ => gone(generation - 2),
    };
    mesh.apply(vec![change]).unwrap().with_generation(generation)
}

/// As the maps of the kernel and `verdicts.rs`: a verdict counts while the pod has the version it was made with.
#[derive(Default)]
struct Kernel {
    version: AtomicU64,
    verdict: Mutex<Option<(u64, bool)>>,
    basis: Mutex<Option<Basis>>,
    /// The generation that its rows are of.
    rows: AtomicU64,
    hits: AtomicU64,
}

struct Stage {
    current: Current,
    duty: Duty,
    kernel: Kernel,
    server: WorkloadUid,
    over: AtomicBool,
    /// For each live connection the generation it was decided by, zero where there is none.
    live: [AtomicU64; LIVE],
}

impl Stage {
    fn new() -> Self {
        let mesh = first();
        let server = mesh.workload_by_address(SERVER).unwrap().uid.clone();
        Self {
            current: Current::new(mesh),
            duty: Duty::default(),
            kernel: Kernel::default(),
            server,
            over: AtomicBool::new(false),
            live: Default::default(),
        }
    }

    /// Brings the kernel up to the snapshot in force, as `pods::reconcile` and `Verdicts::sweep` do.
    async fn follow(&self) -> bool {
        let (_writing, mesh) = self.current.to_follow(&self.duty).await;
        let basis = mesh.basis(&self.server);
        let mut known = self.kernel.basis.lock().unwrap();
        if *known != basis {
            *known = basis;
            self.kernel.version.fetch_add(1, Ordering::SeqCst);
        }
        let before = self.kernel.rows.swap(mesh.generation(), Ordering::SeqCst);
        assert!(
            before <= mesh.generation(),
            "rows of {before} became those of {}",
            mesh.generation()
        );
        true
    }

    fn by_snapshot(&self, mesh: &Mesh) -> authz::Decision {
        let client = mesh.workload_by_address(CLIENT).unwrap();
        let connection = authz::Connection {
            source: Some(&client.identity),
            source_address: CLIENT,
            destination: mesh.workload(&self.server).unwrap(),
            destination_address: SocketAddr::new(SERVER, 80),
        };
        authz::decide(mesh, &connection)
    }

    /// A connection to the server: the kernel's answer where it has one, else the agent's, which is left in the kernel.
    fn connect(&self, by_kernel: bool) -> bool {
        if !by_kernel {
            return self.by_snapshot(&self.current.load()).is_allow();
        }
        let left = *self.kernel.verdict.lock().unwrap();
        if let Some((made_with, allowed)) = left
            && made_with == self.kernel.version.load(Ordering::SeqCst)
        {
            self.kernel.hits.fetch_add(1, Ordering::Relaxed);
            return allowed;
        }
        // The version before the snapshot.
        let version = self.kernel.version.load(Ordering::SeqCst);
        let allowed = self.by_snapshot(&self.current.load()).is_allow();
        *self.kernel.verdict.lock().unwrap() = Some((version, allowed));
        allowed
    }

    /// Connects until the end; answers how many connections were let in and how many were not while only one answer was
    /// right.
    fn decide(&self, by_kernel: bool) -> [u64; 2] {
        let mut certain = [0, 0];
        while !self.over.load(Ordering::Relaxed) {
            let acknowledged = self.current.acknowledged();
            let allowed = self.connect(by_kernel);
            let latest = self.current.load().generation();
            let right = |generation| is_open(generation) == allowed;
            assert!(
                (acknowledged..=latest).any(right),
                "{acknowledged} was acknowledged, {latest} is in force, the answer was {allowed}"
            );
            if acknowledged == latest {
                certain[usize::from(allowed)] += 1;
            }
        }
        certain
    }

    /// One connection after the other that lives until it is cut; answers how many were.
    async fn live(&self, place: usize) -> u64 {
        let mut cut = 0;
        let mut generations = self.current.subscribe();
        while !self.over.load(Ordering::Relaxed) {
            let mesh = self.current.load_full();
            let decided = Decided {
                generation: mesh.generation(),
                source: Some(mesh.workload_by_address(CLIENT).unwrap().identity.clone()),
                source_address: CLIENT,
                destination: self.server.clone(),
                destination_address: SocketAddr::new(SERVER, 80),
            };
            if !self.by_snapshot(&mesh).is_allow() {
                let _ = generations.changed().await;
                continue;
            }
            drop(mesh);
            self.live[place].store(decided.generation.max(1), Ordering::SeqCst);
            let forever = std::future::pending::<RelayEnd>();
            let outcome = relay_while_allowed(&self.current, &decided, None, forever).await;
            assert_eq!(outcome.reason, Reason::PolicyDenied, "{outcome:?}");
            let named = outcome.policy.unwrap();
            let generation: u64 = named
                .split("of-")
                .nth(1)
                .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok())
                .unwrap();
            assert!(
                generation > decided.generation,
                "{named} cut one of {}",
                decided.generation
            );
            self.live[place].store(0, Ordering::SeqCst);
            cut += 1;
        }
        cut
    }

    /// Whether a connection lives that was decided before this generation.
    fn any_older(&self, generation: u64) -> bool {
        let of = |decided: &AtomicU64| (1..generation).contains(&decided.load(Ordering::SeqCst));
        self.live.iter().any(of)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_changes_and_no_stale_decision() {
    let stage = Arc::new(Stage::new());
    stage.follow().await;
    let deciding: Vec<_> = (0..DECIDING)
        .map(|number| {
            let stage = stage.clone();
            thread::spawn(move || stage.decide(number % 2 == 0))
        })
        .collect();
    let live: Vec<_> = (0..LIVE)
        .map(|place| {
            let stage = stage.clone();
            tokio::spawn(async move { stage.live(place).await })
        })
        .collect();
    // What is tried again at any moment, such as a pod that could not be enrolled, must not bring back what was before.
    let again = stage.clone();
    let again = tokio::spawn(async move {
        while !again.over.load(Ordering::Relaxed) {
            again.follow().await;
            tokio::task::yield_now().await;
        }
    });

    for _ in 0..CHANGES {
        let mesh = Arc::new(next(&stage.current.load()));
        let generation = mesh.generation();
        assert!(stage.current.put(mesh, stage.follow()).await);
        assert_eq!(stage.current.acknowledged(), generation);
        assert!(stage.kernel.rows.load(Ordering::SeqCst) >= generation);
        if is_open(generation) {
            continue;
        }
        let begun = Instant::now();
        while stage.any_older(generation) {
            assert!(
                begun.elapsed() < SOON,
                "a connection outlives generation {generation}"
            );
            tokio::task::yield_now().await;
        }
    }
    // Ends closed, so that nobody waits for ever; the last ones hear of it.
    let mut mesh = next(&stage.current.load());
    while mesh.generation() % 4 != 2 {
        mesh = next(&mesh);
    }
    stage.over.store(true, Ordering::Relaxed);
    assert!(stage.current.put(Arc::new(mesh), stage.follow()).await);
    let mut cut = 0;
    for connection in live {
        cut += tokio::time::timeout(SOON, connection).await.unwrap().unwrap();
    }
    tokio::time::timeout(SOON, again).await.unwrap().unwrap();
    let mut certain = [0, 0];
    for thread in deciding {
        let [refused, allowed] = thread.join().unwrap();
        certain[0] += refused;
        certain[1] += allowed;
    }
    // None of the above can have been for want of something to be wrong about.
    let hits = stage.kernel.hits.load(Ordering::Relaxed);
    assert!(certain.iter().all(|count| *count > CHANGES / 10), "{certain:?}");
    assert!(hits > CHANGES / 10, "the kernel answered {hits} times");
    assert!(cut > CHANGES / 4, "{cut} connections were cut");
}

#[tokio::test]
async fn what_the_kernel_does_not_follow_is_not_acknowledged() {
    let stage = Stage::new();
    let second = Arc::new(next(&stage.current.load()));
    assert!(!stage.current.put(second.clone(), async { false }).await);
    assert_eq!(stage.current.acknowledged(), 0);
    assert_eq!(stage.current.load().generation(), 1, "decided by it all the same");
    let third = Arc::new(next(&second));
    assert!(stage.current.put(third, stage.follow()).await);
    assert_eq!(stage.current.acknowledged(), 2);
}

/// Whoever waits for the right to write does so with what is in force when it is his turn.
#[tokio::test]
async fn nobody_follows_an_older_snapshot_than_the_one_in_force() {
    let stage = Arc::new(Stage::new());
    let writing = stage.duty.writing().await;
    let late = stage.clone();
    let late = tokio::spawn(async move { late.current.to_follow(&late.duty).await.1.generation() });
    tokio::task::yield_now().await;
    let mesh = Arc::new(next(&stage.current.load()));
    assert!(stage.current.put(mesh, async { true }).await);
    drop(writing);
    assert_eq!(late.await.unwrap(), 1);
}

/// What leaves the mesh ends when its address is of the mesh, also if that came while it was opened.
#[tokio::test]
async fn a_connection_out_of_the_mesh_ends_when_its_address_joins() {
    let stage = Stage::new();
    let address: IpAddr = [10, 0, 0, 3].into();
    let decided = Outside {
        generation: 0,
        source: stage
            .current
            .load()
            .workload_by_address(CLIENT)
            .unwrap()
            .uid
            .clone(),
        address: SocketAddr::new(address, 80),
    };
    let forever = std::future::pending::<RelayEnd>();
    let mut early = Box::pin(relay_while_outside(&stage.current, &decided, forever));
    assert!(futures_util::poll!(&mut early).is_pending());
    let somebody_elses = Arc::new(next(&stage.current.load()));
    assert!(stage.current.put(somebody_elses, stage.follow()).await);
    assert!(futures_util::poll!(&mut early).is_pending(), "not its address");

    let third = Change::SetPod(Box::new(pod("third", address)));
    let joined = stage.current.load().apply(vec![third]).unwrap();
    let joined = Arc::new(joined.with_generation(2));
    assert!(stage.current.put(joined, stage.follow()).await);
    let forever = std::future::pending::<RelayEnd>();
    let late = relay_while_outside(&stage.current, &decided, forever);
    let (early, late) = tokio::time::timeout(SOON, async { (early.await, late.await) })
        .await
        .unwrap();
    assert_eq!(
        (early.reason, late.reason),
        (Reason::MtlsRequired, Reason::MtlsRequired)
    );
}
