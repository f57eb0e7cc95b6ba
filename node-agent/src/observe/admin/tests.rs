use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::*;
use crate::observe::access_log::{AccessLog, Destination, Format};
use crate::observe::checks::Checks;
use crate::observe::metrics::{Metrics, MetricsSettings};
use crate::observe::test_support::connection;
use crate::observe::{Connections, Observer, Reporter, logging, server::Server};

struct State;

impl AdminState for State {
    fn hand_over(&self) {}

    fn status(&self) -> AgentStatus {
        AgentStatus {
            node: "node-a".into(),
            generation: 7,
            ..AgentStatus::default()
        }
    }

    fn workloads(&self) -> Vec<WorkloadRow> {
        Vec::new()
    }

    fn services(&self) -> Vec<ServiceRow> {
        Vec::new()
    }

    fn policies(&self) -> Vec<PolicyOverview> {
        Vec::new()
    }

    fn certificates(&self) -> CertificateReport {
        CertificateReport::default()
    }

    fn explain(&self, from: &str, to: &str) -> Result<ExplainReport, String> {
        Err(format!("no pod {from} for {to}"))
    }

    fn capture(&self, from: &str) -> Result<CaptureReport, String> {
        Err(format!("no pod {from}"))
    }

    fn objects(&self) -> serde_json::Value {
        serde_json::json!({"kind": "List"})
    }

    fn config(&self) -> ConfigReport {
        ConfigReport {
            generation: 7,
            objects: vec!["Pod default/sleep".into()],
            errors: Vec::new(),
        }
    }
}

fn health() -> Health {
    let log = AccessLog::start(&Destination::Off, Format::Json).unwrap();
    let observer = Observer::new(
        Metrics::new(MetricsSettings::default()),
        Connections::new(100),
        log,
    );
    Health {
        observer,
        live: Checks::default(),
        ready: Checks::default(),
    }
}

/// A raw exchange, so that what is on the wire is seen.
async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    request: &str,
) -> (u16, String) {
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

async fn ask(path: &Path, request: &str) -> (u16, String) {
    exchange(UnixStream::connect(path).await.unwrap(), request).await
}

#[tokio::test]
async fn the_socket_answers_and_goes_away_with_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/deep/admin.sock");
    let health = health();
    let ready = health.ready.register("kernel");
    let observer = Arc::clone(&health.observer);
    let log = logging::detached("info").unwrap();
    let server = AdminServer::bind(&path, State, health, log).unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));

    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(
        std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
        1,
        "nothing else is left there"
    );

    let (status, body) = ask(&path, "GET /status").await;
    let value: Status = serde_json::from_str(&body).unwrap();
    assert_eq!((status, value.ready, value.agent.generation), (200, false, 7));
    ready.ok();
    assert!(
        serde_json::from_str::<Status>(&ask(&path, "GET /status").await.1)
            .unwrap()
            .ready
    );

    for path_and_answer in [
        ("/services", "[]"),
        ("/policies", "[]"),
        (
            "/certificates",
            "{\"certificates\":[],\"roots\":[],\"revocation_lists\":[]}",
        ),
    ] {
        let (of, answer) = path_and_answer;
        assert_eq!(ask(&path, &format!("GET {of}")).await, (200, answer.into()));
        assert_eq!(ask(&path, &format!("POST {of}")).await.0, 405);
    }
    assert!(
        ask(&path, "GET /nothing")
            .await
            .1
            .contains("/services, /policies, /certificates")
    );

    let open: Vec<_> = (0..3)
        .map(|_| observer.open(connection(Reporter::Source)))
        .collect();
    open[0].counters().add_to_source(9);
    let (_, body) = ask(&path, "GET /connections?limit=2").await;
    let list: ConnectionList = serde_json::from_str(&body).unwrap();
    assert_eq!((list.total, list.connections.len()), (3, 2));
    assert_eq!(
        (list.connections[0].to_source, list.connections[0].established),
        (9, true)
    );
    assert!(!list.connections[1].established);
    assert_eq!(
        list.connections[0].source.as_deref(),
        Some("default/sleep-5d9c-x7")
    );
    open[1].established();
    let traffic: TrafficReport = serde_json::from_str(&ask(&path, "GET /traffic").await.1).unwrap();
    assert_eq!((traffic.connections, traffic.pairs.len()), (3, 1), "{traffic:?}");
    let pair = &traffic.pairs[0];
    assert_eq!(
        (&*pair.direction, &*pair.source, &*pair.destination),
        ("outbound", "default/sleep", "default/helloworld")
    );
    // The first one moved bytes, so it counts as established too.
    assert_eq!(
        (pair.opened, pair.closed, pair.to_source, pair.to_destination),
        (2, 0, 9, 0)
    );

    assert_eq!(ask(&path, "GET /connections?limit=x").await.0, 400);

    assert_eq!(ask(&path, "GET /workloads").await, (200, "[]".into()));
    assert!(ask(&path, "GET /config").await.1.contains("Pod default/sleep"));
    assert!(ask(&path, "GET /metrics").await.1.ends_with("# EOF\n"));
    assert_eq!(
        ask(&path, "POST /logging?level=warn").await,
        (200, "warn\n".into())
    );
    assert_eq!(ask(&path, "GET /logging").await, (200, "warn\n".into()));
    assert_eq!(ask(&path, "POST /logging?level=loud").await.0, 400);
    assert_eq!(ask(&path, "POST /logging").await.0, 400);
    assert_eq!(ask(&path, "POST /status").await.0, 405);
    assert_eq!(ask(&path, "GET /secret").await.0, 404);

    shutdown.cancel();
    running.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener that died leaves its socket");
    let living = socket::bind(&path).unwrap();
    assert!(matches!(socket::bind(&path), Err(SocketError::InUse(_))));
    assert!(
        UnixStream::connect(&path).await.is_ok(),
        "the living one was not disturbed"
    );
    drop(living);
    assert!(socket::bind(&path).is_ok());
}

#[test]
fn only_root_and_the_agents_own_user_may_enter() {
    let entered = [(0, 1000), (1000, 1000), (0, 0), (1001, 1000), (1000, 0)]
        .map(|(peer, own)| socket::user_may_enter(peer, own));
    assert_eq!(entered, [true, true, true, false, false]);
}

#[tokio::test]
async fn nothing_but_a_socket_is_replaced_and_open_directories_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(matches!(socket::bind(&file), Err(SocketError::NotASocket(_))));
    let link = directory.path().join("link");
    symlink(&file, &link).unwrap();
    assert!(matches!(socket::bind(&link), Err(SocketError::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let open = directory.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(
        socket::bind(&open.join("admin.sock")),
        Err(SocketError::OpenDirectory { mode: 0o777, .. })
    ));
}

#[tokio::test]
async fn health_answers_as_kube_apiserver_does() {
    let health = health();
    let kernel = health.ready.register("kernel");
    let config = health.ready.register("config");
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), health)
        .await
        .unwrap();
    let address = server.address().unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(server.run(shutdown.clone()));
    let ask =
        async |request: &str| exchange(tokio::net::TcpStream::connect(address).await.unwrap(), request).await;

    kernel.ok();
    let failing = (
        503,
        "[+]kernel ok\n[-]config failed: not yet\nreadyz check failed\n".to_owned(),
    );
    assert_eq!(ask("GET /readyz").await, failing);
    assert_eq!(ask("GET /readyz?verbose").await, failing);
    assert_eq!(
        ask("GET /livez").await,
        (200, "ok".into()),
        "not ready is not dead"
    );
    config.ok();
    assert_eq!(ask("GET /readyz").await, (200, "ok".into()));
    let passing = "[+]kernel ok\n[+]config ok\nreadyz check passed\n".to_owned();
    assert_eq!(ask("GET /readyz?verbose").await, (200, passing));
    assert!(
        ask("GET /metrics")
            .await
            .1
            .contains("tramline_build_info{version=\"")
    );
    assert_eq!(
        ask("GET /status").await.0,
        404,
        "nothing of the admin socket is here"
    );
    assert_eq!(ask("POST /metrics").await.0, 405);
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn half_a_header_or_an_unread_answer_does_not_hold_a_connection() {
    let deadlines = Deadlines {
        header: Duration::from_millis(50),
        connection: Duration::from_secs(60),
    };
    let (mut client, io) = tokio::io::duplex(1024);
    http::serve(io, None, deadlines, |_| async {
        http::text(StatusCode::OK, "never")
    });
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: ").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("never"));

    let deadlines = Deadlines {
        header: Duration::from_secs(60),
        connection: Duration::from_millis(50),
    };
    let (mut client, io) = tokio::io::duplex(1024);
    let slots = Slots::new();
    http::serve(io, slots.take().await, deadlines, |_| async {
        http::text(StatusCode::OK, vec![b'x'; 1 << 20])
    });
    client
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let freed = async {
        while slots.free() < slots.all() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed)
        .await
        .unwrap();
}
