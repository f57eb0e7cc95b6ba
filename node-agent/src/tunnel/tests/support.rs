//! Two workloads, an agent's server for one of them, and a pool for the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tramline_core::counters::ByteCounters;
use tramline_core::identity::{SpiffeId, TrustDomain};
use tramline_core::reason::Reason;
use tramline_core::workload::WorkloadUid;

use crate::identify::{CertificateAuthority, WorkloadCertificate};
use crate::tunnel::{
    ConnectRequest, Forwarded, Pool, PoolKey, RelayEnd, Served, Shown, Side, TunnelError, TunnelSettings,
    TunnelStats, TunnelStream, relay, serve,
};

pub(super) fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::new("cluster.local").unwrap(), "shop", account).unwrap()
}

/// A source and a destination workload that trust each other.
pub(super) struct Rig {
    pub(super) source: WorkloadCertificate,
    pub(super) destination: WorkloadCertificate,
    pub(super) settings: TunnelSettings,
    pub(super) stats: Arc<TunnelStats>,
    pub(super) pool: Arc<Pool>,
    /// Connections that the server has accepted.
    pub(super) accepted: Arc<AtomicUsize>,
}

impl Rig {
    pub(super) fn new(settings: TunnelSettings) -> Self {
        let state = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("cluster.local").unwrap();
        let authority = CertificateAuthority::open_or_create(state.path(), &domain).unwrap();
        let issue = |account| {
            authority
                .issue(&identity(account), Duration::from_secs(3600), SystemTime::now())
                .unwrap()
        };
        let stats = Arc::new(TunnelStats::default());
        Self {
            source: issue("client"),
            destination: issue("server"),
            pool: Pool::new(settings.clone(), Arc::clone(&stats)),
            settings,
            stats,
            accepted: Arc::default(),
        }
    }

    pub(super) fn key(&self, address: SocketAddr) -> PoolKey {
        PoolKey {
            source_workload: WorkloadUid::new("source-pod"),
            source: identity("client"),
            destination: identity("server"),
            address,
        }
    }

    /// An agent's server: every stream is relayed to `application`.
    pub(super) async fn server(&self, application: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        self.server_with(move |request| async move {
            match TcpStream::connect(application).await {
                Ok(tcp) => {
                    let stream = request.accept().unwrap();
                    let _ = relay(tcp, stream, Side::Destination, &ByteCounters::default()).await;
                }
                Err(_) => request.refuse(StatusCode::SERVICE_UNAVAILABLE, Reason::ConnectRefused),
            }
        })
        .await
    }

    pub(super) async fn server_with<F>(
        &self,
        handle: impl Fn(crate::tunnel::InboundRequest) -> F + Clone + Send + 'static,
    ) -> (SocketAddr, JoinHandle<()>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = Served::with(&self.destination);
        let (settings, stats, accepted) = (
            self.settings.clone(),
            Arc::clone(&self.stats),
            Arc::clone(&self.accepted),
        );
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                accepted.fetch_add(1, Ordering::Relaxed);
                let (tls, settings, stats, handle) =
                    (tls.clone(), settings.clone(), Arc::clone(&stats), handle.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = serve(tcp, tls, &settings, stats).await else {
                        return;
                    };
                    while let Some(request) = connection.accept().await {
                        tokio::spawn(handle(request));
                    }
                });
            }
        });
        (address, task)
    }

    pub(super) async fn open(&self, address: SocketAddr) -> Result<TunnelStream, TunnelError> {
        self.open_key(&self.key(address)).await
    }

    pub(super) async fn open_key(&self, key: &PoolKey) -> Result<TunnelStream, TunnelError> {
        let address = key.address;
        let shown = Shown::to(&key.destination, &self.source);
        let request = ConnectRequest {
            authority: "10.9.8.7:80".parse().unwrap(),
            forwarded: Forwarded {
                client: "10.1.1.1:4000".parse().unwrap(),
                host: None,
            },
            baggage: Some("k8s.namespace.name=shop".to_owned()),
            traceparent: None,
        };
        let dial = move || TcpStream::connect(address).boxed();
        self.pool.open(key, shown, dial, request).await
    }

    /// A client's socket whose connection goes through a tunnel to the server at `address`.
    pub(super) async fn client(&self, address: SocketAddr) -> (TcpStream, JoinHandle<RelayEnd>) {
        let stream = self.open(address).await.unwrap();
        let (client, inner) = pair().await;
        let relayed =
            tokio::spawn(async move { relay(inner, stream, Side::Source, &ByteCounters::default()).await });
        (client, relayed)
    }

    /// Waits until a gauge has a value.
    pub(super) async fn until(&self, gauge: impl Fn(&TunnelStats) -> &AtomicU64, value: u64) {
        let reached = async {
            while gauge(&self.stats).load(Ordering::Relaxed) != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), reached).await;
        assert!(waited.is_ok(), "{:?}, expected {value}", self.stats);
    }
}

/// Both ends of one TCP connection.
pub(super) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (left, right) = tokio::join!(connect, listener.accept());
    (left.unwrap(), right.unwrap().0)
}

/// An application that returns what it gets, and ends when its client does.
pub(super) async fn echo() -> SocketAddr {
    application(|mut tcp| async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(n) = tcp.read(&mut buffer).await {
            if n == 0 || tcp.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    })
    .await
}

/// An application that handles each connection with `handle`.
pub(super) async fn application<F>(handle: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(handle(tcp));
        }
    });
    address
}

/// A network path to `target`. Set to true, the connections that exist are held open and carry nothing more; new
/// ones are carried.
pub(super) async fn freezer(target: SocketAddr) -> (SocketAddr, tokio::sync::watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        loop {
            let (mut left, _) = listener.accept().await.unwrap();
            let mut right = TcpStream::connect(target).await.unwrap();
            let (mut frozen, fresh) = (frozen.clone(), *frozen.borrow());
            tokio::spawn(async move {
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut left, &mut right) => {}
                    () = async { drop(frozen.wait_for(|frozen| *frozen && !fresh).await) } => {
                        std::future::pending().await
                    }
                }
            });
        }
    });
    (address, freeze)
}
