//! The health port: `/metrics`, `/livez`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Observer;
use super::checks::Checks;
use super::http::{self, Answer, Deadlines, Slots};

/// What the Prometheus text encoder writes (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// After an accept that failed, for want of descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the health port shows.
#[derive(Debug, Clone)]
pub struct Health {
    /// The metrics.
    pub observer: Arc<Observer>,
    /// Behind `/livez`: failing means that a restart would help.
    pub live: Checks,
    /// Behind `/readyz`: failing means that pods of this node cannot be served yet.
    pub ready: Checks,
}

/// The health port, bound and not yet served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    health: Health,
}

/// The health port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("metrics and health on {address}: {source}; choose another --metrics-address, or 0 for none")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

impl BindError {
    /// Somebody else listens there.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::AddrInUse
    }
}

impl Server {
    /// Binds `address`.
    ///
    /// # Errors
    /// When the address is taken or not of this machine.
    pub async fn bind(address: SocketAddr, health: Health) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError { address, source })?;
        Ok(Self { listener, health })
    }

    /// The address bound, for a port that the kernel chose.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let slots = Slots::new();
        let accept = async {
            loop {
                let slot = slots.take().await;
                match self.listener.accept().await {
                    Ok((stream, _)) => {
                        let health = self.health.clone();
                        http::serve(stream, slot, Deadlines::default(), move |request| {
                            let health = health.clone();
                            async move { health.handle(&request).await }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept on the health port");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        shutdown.run_until_cancelled(accept).await;
    }
}

impl Health {
    async fn handle(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return http::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        let verbose = http::parameter(request.uri().query(), "verbose").is_some();
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/livez" => state(&self.live, "livez", verbose),
            "/readyz" => state(&self.ready, "readyz", verbose),
            _ => http::text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n"),
        }
    }

    /// Rendered on a blocking thread: thousands of series must not delay a probe.
    async fn metrics(&self) -> Answer {
        let health = self.clone();
        match tokio::task::spawn_blocking(move || health.metrics_now()).await {
            Ok(answer) => answer,
            Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")),
        }
    }

    /// The same for a caller that may take its time.
    pub(super) fn metrics_now(&self) -> Answer {
        http::answer(StatusCode::OK, OPEN_METRICS, self.observer.render())
    }
}

/// As kube-apiserver: short when all is well, every check when asked or when something is wrong.
fn state(checks: &Checks, endpoint: &str, verbose: bool) -> Answer {
    match (checks.passed(), verbose) {
        (true, false) => http::text(StatusCode::OK, "ok"),
        (true, true) => http::text(StatusCode::OK, checks.verbose(endpoint)),
        (false, _) => http::text(StatusCode::SERVICE_UNAVAILABLE, checks.verbose(endpoint)),
    }
}
