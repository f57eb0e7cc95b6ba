//! Certificates and roots that change under load, and peers that are not believed any more.

mod trust;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use http::StatusCode;
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tramline_core::counters::ByteCounters;
use tramline_core::identity::TrustDomain;
use tramline_core::reason::Reason;
use tramline_core::workload::WorkloadUid;

use super::failures::request;
use super::support::{echo, identity, pair};
use crate::identify::{CertStore, CertificateAuthority, TrustFiles};
use crate::tunnel::{
    Pool, PoolKey, RelayEnd, Served, Shown, Side, TunnelSettings, TunnelStats, TunnelStream, relay, serve,
};

const WORKERS: usize = 4;

/// One node's agent, as far as identity and tunnels go: a state directory, a store that renews, a pool.
struct Agent {
    dir: TempDir,
    store: Arc<CertStore>,
    pool: Arc<Pool>,
    stats: Arc<TunnelStats>,
    stop: CancellationToken,
}

impl Agent {
    fn new(ttl: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        CertificateAuthority::open_or_create(dir.path(), &domain()).unwrap();
        Self::start(dir, ttl)
    }

    fn start(dir: TempDir, ttl: Duration) -> Self {
        let there = |name: &str| Some(dir.path().join(name)).filter(|path| path.exists());
        let given = TrustFiles {
            bundle: there("bundle.pem"),
            crl: there("crl.pem"),
        };
        let authority = CertificateAuthority::open(dir.path(), &domain().into(), given).unwrap();
        let store = CertStore::new(authority, ttl);
        let stop = CancellationToken::new();
        tokio::spawn(store.clone().run(stop.clone()));
        let stats = Arc::new(TunnelStats::default());
        Self {
            dir,
            store,
            pool: Pool::new(TunnelSettings::default(), stats.clone()),
            stats,
            stop,
        }
    }

    /// Answers as `server` and relays to an echo.
    async fn serve(&self) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<RelayEnd>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (store, stats, application) = (self.store.clone(), self.stats.clone(), echo().await);
        let (told, ends) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let certificate = store.get(&identity("server")).await.unwrap();
                let (stats, told) = (stats.clone(), told.clone());
                tokio::spawn(async move {
                    let settings = TunnelSettings::default();
                    let Ok(mut connection) = serve(tcp, Served::with(&certificate), &settings, stats).await
                    else {
                        return;
                    };
                    while let Some(request) = connection.accept().await {
                        let told = told.clone();
                        tokio::spawn(async move {
                            let Ok(tcp) = TcpStream::connect(application).await else {
                                return request
                                    .refuse(StatusCode::SERVICE_UNAVAILABLE, Reason::ConnectRefused);
                            };
                            let stream = request.accept().unwrap();
                            let counters = ByteCounters::default();
                            let _ = told.send(relay(tcp, stream, Side::Destination, &counters).await);
                        });
                    }
                });
            }
        });
        (address, ends)
    }

    async fn open(&self, address: SocketAddr) -> Result<TunnelStream, String> {
        let certificate = self.store.get(&identity("client")).await;
        let certificate = certificate.map_err(|error| error.to_string())?;
        let key = to_server(address);
        let shown = Shown::to(&key.destination, &certificate);
        let dial = move || TcpStream::connect(address).boxed();
        let opened = self.pool.open(&key, shown, dial, request()).await;
        opened.map_err(|error| format!("{}: {error}", error.reason()))
    }

    /// An application's connection through a tunnel that has been answered once.
    async fn hold(&self, address: SocketAddr) -> (TcpStream, JoinHandle<RelayEnd>) {
        let stream = self.open(address).await.unwrap();
        let (mut client, inner) = pair().await;
        let relayed =
            tokio::spawn(async move { relay(inner, stream, Side::Source, &ByteCounters::default()).await });
        client.write_all(b"x").await.unwrap();
        client.read_exact(&mut [0]).await.unwrap();
        (client, relayed)
    }

    /// One connection of an application: a request, its answer, and both ends.
    async fn exchange(&self, address: SocketAddr) -> Result<(), String> {
        let stream = self.open(address).await?;
        let (mut client, inner) = pair().await;
        let relayed =
            tokio::spawn(async move { relay(inner, stream, Side::Source, &ByteCounters::default()).await });
        let mut answer = Vec::new();
        let exchanged = async {
            client.write_all(b"a question").await?;
            client.shutdown().await?;
            client.read_to_end(&mut answer).await
        };
        exchanged.await.map_err(|error| error.to_string())?;
        let end = relayed.await.map_err(|error| error.to_string())?;
        match answer == b"a question" && end.reason == Reason::Ok {
            true => Ok(()),
            false => Err(format!("{answer:?}, {end:?}")),
        }
    }

    fn reload(&self) {
        let errors = self.store.authority().reload();
        assert!(errors.is_empty(), "{errors:?}");
    }

    fn root(&self) -> String {
        fs::read_to_string(self.dir.path().join("ca/root.pem")).unwrap()
    }

    fn trust(&self, roots: &[&str]) {
        put(&self.dir.path().join("bundle.pem"), &roots.concat());
        self.reload();
    }

    /// Signs with the authority of another directory from now on.
    fn sign_with(&self, other: &Path) {
        for name in ["ca/root-key.pem", "ca/root.pem"] {
            put(
                &self.dir.path().join(name),
                &fs::read_to_string(other.join(name)).unwrap(),
            );
        }
        self.reload();
    }

    fn serial(&self) -> String {
        self.store.certificates()[0].serial.clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn to_server(address: SocketAddr) -> PoolKey {
    PoolKey {
        source_workload: WorkloadUid::new("source-pod"),
        source: identity("client"),
        destination: identity("server"),
        address,
    }
}

fn domain() -> TrustDomain {
    TrustDomain::new("cluster.local").unwrap()
}

fn put(path: &Path, text: &str) {
    let beside = path.with_extension("beside");
    fs::write(&beside, text).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(beside, path).unwrap();
}

/// A state directory with a root, and a copy of it by that name.
fn made(copy: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    CertificateAuthority::open_or_create(dir.path(), &domain()).unwrap();
    fs::copy(dir.path().join("ca/root.pem"), dir.path().join(copy)).unwrap();
    dir
}

/// Requests one after the other from several tasks until `until` ends; the failures, and how many succeeded.
async fn load(agent: Arc<Agent>, address: SocketAddr, until: impl Future<Output = ()>) -> (Vec<String>, u64) {
    let stop = CancellationToken::new();
    let done = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (agent, stop, done) = (agent.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.is_cancelled() {
                    match agent.exchange(address).await {
                        Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => failures.push(error),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                failures
            })
        })
        .collect();
    until.await;
    stop.cancel();
    let mut failures = Vec::new();
    for worker in workers {
        failures.extend(worker.await.unwrap());
    }
    (failures, done.load(Ordering::Relaxed))
}

/// `TRAMLINE_ROTATION_SECONDS=300` is the long run; its certificates live 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_load_and_no_request_fails() {
    let seconds = std::env::var("TRAMLINE_ROTATION_SECONDS");
    let asked: Option<u64> = seconds.ok().map(|seconds| seconds.parse().unwrap());
    let (run, ttl) = asked.map_or((8, 4), |seconds| (seconds, 10));
    let agent = Arc::new(Agent::new(Duration::from_secs(ttl)));
    let (address, _ends) = agent.serve().await;
    let pause = tokio::time::sleep(Duration::from_secs(run));
    let (failures, done) = load(agent.clone(), address, pause).await;
    assert!(
        failures.is_empty(),
        "{} of {done}: {:?}",
        failures.len(),
        failures.first()
    );
    let counts = agent.store.counts();
    // Two workloads, each about every half of its certificate's life.
    assert!(
        counts.issued >= 2 * (run / ttl) && counts.failed == 0,
        "{counts:?}"
    );
    let tunnels = agent.stats.dials.load(Ordering::Relaxed);
    assert!(tunnels > run / ttl, "{tunnels} tunnels");
    report(asked, done, counts.issued, tunnels);
}

fn report(asked: Option<u64>, done: u64, issued: u64, tunnels: u64) {
    if let Some(seconds) = asked {
        eprintln!("{seconds} s: {done} requests, none failed; {issued} certificates, {tunnels} tunnels");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_is_replaced_with_overlap_under_load_and_no_request_fails() {
    let hour = Duration::from_secs(3600);
    let agent = Arc::new(Agent::start(made("bundle.pem"), hour));
    let (next, old) = (made("copy.pem"), agent.root());
    let new = fs::read_to_string(next.path().join("ca/root.pem")).unwrap();
    let (address, _ends) = agent.serve().await;
    let rotation = async {
        let pause = || tokio::time::sleep(Duration::from_millis(500));
        pause().await;
        agent.trust(&[&old, &new]);
        pause().await;
        agent.sign_with(next.path());
        pause().await;
        // Clients have left the tunnels of before by themselves; a server's clients get up to 30 s, which new ones
        // from here do not need.
        agent.trust(&[&new]);
        pause().await;
    };
    let (failures, done) = load(agent.clone(), address, rotation).await;
    assert!(
        failures.is_empty(),
        "{} of {done}: {:?}",
        failures.len(),
        failures.first()
    );
    let roots = agent.store.trust().snapshot().roots;
    assert_eq!(roots.len(), 1);
    for certificate in agent.store.certificates() {
        assert_eq!(certificate.root_fingerprint, roots[0].fingerprint);
    }
}

#[tokio::test]
async fn a_stream_outlives_the_renewal_and_new_ones_go_to_a_fresh_tunnel() {
    let agent = Agent::new(Duration::from_secs(3600));
    let (address, _ends) = agent.serve().await;
    let (mut held, _relay) = agent.hold(address).await;
    assert_eq!(agent.stats.dials.load(Ordering::Relaxed), 1);
    // What the store does with the certificate before, at a renewal.
    let certificate = agent.store.get(&identity("client")).await.unwrap();
    certificate.superseded().cancel();
    agent.exchange(address).await.unwrap();
    assert_eq!(agent.stats.dials.load(Ordering::Relaxed), 2);
    held.write_all(b"y").await.unwrap();
    held.read_exact(&mut [0]).await.unwrap();
}
