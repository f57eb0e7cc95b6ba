//! The admin socket: HTTP on a unix socket that only root and the agent's own user may use.

pub mod api;
mod socket;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::http::{self, Answer, Deadlines, Slots};
use super::logging::LogControl;
use super::server::Health;
use api::{
    AgentStatus, CaptureReport, CertificateReport, ConfigReport, ConnectionList, ConnectionRow,
    ExplainReport, PolicyOverview, ServiceRow, Status, TrafficReport, TrafficRow, WorkloadRow,
};
pub use socket::SocketError;

/// Every answer says here which agent gave it, as `VERSION (COMMIT)`: the command line tells from it who is older.
pub const VERSION_HEADER: &str = "tramline-version";
/// Rows of `/connections` unless `limit` says otherwise.
const DEFAULT_LIMIT: usize = 1_000;
/// What is answered.
const PATHS: &[&str] = &[
    "/status",
    "/workloads",
    "/services",
    "/policies",
    "/certificates",
    "/explain",
    "/capture",
    "/connections",
    "/traffic",
    "/config",
    "/objects",
    "/metrics",
    "/logging",
    "/handover",
];
/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the agent's wiring tells; the rest of the answers is known here.
pub trait AdminState: Send + Sync + 'static {
    /// The agent's part of `/status`.
    fn status(&self) -> AgentStatus;
    /// Every workload known, those of this node first.
    fn workloads(&self) -> Vec<WorkloadRow>;
    /// Every Service, by namespace and name.
    fn services(&self) -> Vec<ServiceRow>;
    /// Every policy, and what becomes of it.
    fn policies(&self) -> Vec<PolicyOverview>;
    /// The certificates of this node's workloads.
    fn certificates(&self) -> CertificateReport;
    /// What would happen to a connection of `from` to `to`.
    ///
    /// # Errors
    /// A sentence about a question that has no answer.
    fn explain(&self, from: &str, to: &str) -> Result<ExplainReport, String>;
    /// Whether the connections of pod `from` are captured.
    ///
    /// # Errors
    /// A sentence about a question that has no answer.
    fn capture(&self, from: &str) -> Result<CaptureReport, String>;
    /// A successor asks this agent to leave the kernel to it; done soon after the answer.
    fn hand_over(&self);
    /// The configuration in use and what was refused.
    fn config(&self) -> ConfigReport;
    /// The objects in use, as a `List` of manifests.
    fn objects(&self) -> serde_json::Value;
}

/// The admin socket, bound and not yet served.
pub struct AdminServer<S> {
    listener: UnixListener,
    path: PathBuf,
    context: Arc<Context<S>>,
}

struct Context<S> {
    state: S,
    health: Health,
    log: LogControl,
    started: Instant,
}

impl<S: AdminState> AdminServer<S> {
    /// Binds `path` with mode 0600; makes its directory with mode 0700 where it is missing. A socket left behind is
    /// replaced, one that answers is not. Call it within a tokio runtime.
    ///
    /// # Errors
    /// When another agent answers there, or the directory is open to others.
    pub fn bind(path: &Path, state: S, health: Health, log: LogControl) -> Result<Self, SocketError> {
        let listener = socket::bind(path)?;
        let context = Context {
            state,
            health,
            log,
            started: Instant::now(),
        };
        Ok(Self {
            listener,
            path: path.to_owned(),
            context: Arc::new(context),
        })
    }

    /// Serves until `shutdown`, then removes the socket.
    pub async fn run(self, shutdown: CancellationToken) {
        let slots = Slots::new();
        let accept = async {
            loop {
                let slot = slots.take().await;
                match self.listener.accept().await {
                    Ok((stream, _)) if !socket::peer_may_enter(&stream) => drop(stream),
                    Ok((stream, _)) => {
                        let context = Arc::clone(&self.context);
                        http::serve(stream, slot, Deadlines::default(), move |request| {
                            let context = Arc::clone(&context);
                            async move { context.answer(&request).await }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept on the admin socket");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        shutdown.run_until_cancelled(accept).await;
        // Another agent may have taken the path over only if this socket no longer answered; it still does here.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl<S: AdminState> Context<S> {
    /// Answers on a blocking thread: what goes through a whole mesh must not delay a probe or a new configuration.
    async fn answer(self: Arc<Self>, request: &Request<Incoming>) -> Answer {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let asked = tokio::task::spawn_blocking(move || self.handle(&method, uri.path(), uri.query()));
        let mut answer = asked.await.unwrap_or_else(|error| {
            http::text(StatusCode::INTERNAL_SERVER_ERROR, format!("no answer: {error}\n"))
        });
        if let Ok(version) = HeaderValue::from_str(&format!("{} ({})", super::VERSION, super::COMMIT)) {
            answer.headers_mut().insert(VERSION_HEADER, version);
        }
        answer
    }

    fn handle(&self, method: &Method, path: &str, query: Option<&str>) -> Answer {
        match (method, path) {
            (&Method::GET, "/status") => json(&self.status()),
            (&Method::GET, "/workloads") => json(&self.state.workloads()),
            (&Method::GET, "/services") => json(&self.state.services()),
            (&Method::GET, "/policies") => json(&self.state.policies()),
            (&Method::GET, "/certificates") => json(&self.state.certificates()),
            (&Method::GET, "/explain") => {
                match (http::parameter(query, "from"), http::parameter(query, "to")) {
                    (Some(from), Some(to)) => answered(self.state.explain(from, to)),
                    _ => http::text(StatusCode::BAD_REQUEST, "say ?from=NAMESPACE/POD&to=HOST:PORT\n"),
                }
            }
            (&Method::GET, "/capture") => match http::parameter(query, "from") {
                Some(from) => answered(self.state.capture(from)),
                None => http::text(StatusCode::BAD_REQUEST, "say ?from=NAMESPACE/POD\n"),
            },
            (&Method::GET, "/connections") => {
                match http::parameter(query, "limit").map_or(Ok(DEFAULT_LIMIT), str::parse) {
                    Ok(limit) => json(&self.connections(limit)),
                    Err(_) => http::text(StatusCode::BAD_REQUEST, "limit must be a number\n"),
                }
            }
            (&Method::GET, "/traffic") => json(&self.traffic()),
            (&Method::GET, "/config") => json(&self.state.config()),
            (&Method::GET, "/objects") => json(&self.state.objects()),
            (&Method::GET, "/metrics") => self.health.metrics_now(),
            (&Method::GET, "/logging") => http::text(StatusCode::OK, format!("{}\n", self.log.current())),
            (&Method::POST, "/handover") => {
                self.state.hand_over();
                http::text(StatusCode::OK, "stepping aside\n")
            }
            (&Method::POST, "/logging") => self.set_log_level(http::parameter(query, "level")),
            (_, path) if PATHS.contains(&path) => http::text(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET; /logging also takes POST, /handover nothing else\n",
            ),
            _ => http::text(StatusCode::NOT_FOUND, format!("there are {}\n", PATHS.join(", "))),
        }
    }

    fn status(&self) -> Status {
        Status {
            version: super::VERSION.to_owned(),
            commit: super::COMMIT.to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: self.health.ready.passed(),
            checks: self.health.ready.results(),
            connections: self.health.observer.connections().len(),
            log_level: self.log.current(),
            agent: self.state.status(),
        }
    }

    fn connections(&self, limit: usize) -> ConnectionList {
        let now = Instant::now();
        let mut listed = Vec::new();
        self.health
            .observer
            .connections()
            .for_each(|live| listed.push(Arc::clone(live)));
        listed.sort_unstable_by_key(|live| live.id);
        let row = |live: &Arc<_>| ConnectionRow::of(live, now.saturating_duration_since(live.opened));
        ConnectionList {
            total: listed.len(),
            connections: listed.iter().take(limit).map(row).collect(),
        }
    }

    fn traffic(&self) -> TrafficReport {
        let observer = &self.health.observer;
        TrafficReport {
            agent_node: self.state.status().node,
            ready: self.health.ready.passed(),
            connections: observer.connections().len(),
            pairs: observer.traffic().into_iter().map(TrafficRow::from).collect(),
        }
    }

    fn set_log_level(&self, level: Option<&str>) -> Answer {
        let Some(level) = level else {
            return http::text(StatusCode::BAD_REQUEST, "say ?level=info, or ?level=reset\n");
        };
        match self.log.set(level) {
            Ok(()) => {
                let current = self.log.current();
                tracing::info!(level = current, "log level changed");
                http::text(StatusCode::OK, format!("{current}\n"))
            }
            Err(error) => http::text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

/// The answer, or why the question has none.
fn answered(answer: Result<impl Serialize, String>) -> Answer {
    match answer {
        Ok(answer) => json(&answer),
        Err(why) => http::text(StatusCode::BAD_REQUEST, format!("{why}\n")),
    }
}

fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => http::answer(StatusCode::OK, "application/json", body),
        Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
