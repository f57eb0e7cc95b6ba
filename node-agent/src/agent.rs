//! The agent put together: what is started in which order, on which threads, and how it ends.
//!
//! Connections run on the data plane's runtime; configuration, admin socket, health and metrics on a small one of
//! their own, so that neither starves the other.

mod admin;
mod configuration;
mod front;
mod handover;
mod kernel_events;
mod numbers;
mod passages;
mod trust;

use self::{front::Front, handover::Predecessor};
use crate::{
    balancer::Balancer,
    broker::{self, Broker, BrokerSettings},
    cli::{DoctorArgs, RunConfig},
    context::{Context, Waits},
    current::Current,
    discover::{FilesSource, files::LastGood},
    doctor::Check,
    duty::Duty,
    identify::{CertStore, CertificateAuthority, TrustFiles},
    observe::{
        Connections, Observer,
        access_log::AccessLog,
        checks::Checks,
        logging,
        metrics::{Metrics, MetricsSettings},
        server::Health,
    },
    pods::{self, LocalPods},
    tunnel::{Pool, TunnelSettings, TunnelStats},
    verdicts::Verdicts,
};
use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tramline_core::{
    identity::{TrustDomain, TrustDomains},
    mesh::{Mesh, MeshSettings},
};

/// Connections (and tunnels' TCP connections) that the agent carries at once.
const MAX_CONNECTIONS: usize = 65_536;
/// Rows of the table of live connections.
const MAX_LISTED: usize = 65_536;
/// How long the last access-log lines may take to be written.
const FLUSH: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting; once it runs, failures are logged, counted and shown by `tramline status`.
pub fn run(config: RunConfig) -> anyhow::Result<()> {
    let log = logging::init(&config.log_level, config.log_format)?;
    raise_descriptor_limit();
    let mut data = Builder::new_multi_thread();
    data.thread_name("tramline-data").enable_all();
    if let Some(workers) = config.workers {
        data.worker_threads(workers.get());
    }
    let data = data.build().context("starting the data plane's threads")?;
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the control runtime")?;
    let own = TrustDomain::new(&config.trust_domain).context("--trust-domain")?;
    let trust_domains = TrustDomains::new(own, &config.trust_domain_alias).context("--trust-domain-alias")?;
    let settings = MeshSettings::new(trust_domains, &config.node).with_root_namespace(&config.root_namespace);
    let succeeds = handover::ask(&config, &settings)?;
    let access_log = AccessLog::start(&config.access_log, config.access_log_format)?;
    let observer = Observer::new(
        Metrics::new(MetricsSettings {
            cluster: config.cluster_id.clone(),
            ..MetricsSettings::default()
        }),
        Connections::new(MAX_LISTED),
        access_log,
    );
    let done = control.block_on(serve(&config, settings, succeeds, &data, log, observer.clone()));
    // Connections that are still open end here; capture stays pinned, so nothing leaves a pod unprotected.
    data.shutdown_timeout(Duration::from_secs(1));
    // Their lines too.
    observer.access_log().flush(FLUSH);
    done
}

async fn serve(
    config: &RunConfig,
    settings: MeshSettings,
    succeeds: bool,
    data: &Runtime,
    log: logging::LogControl,
    observer: Arc<Observer>,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();

    let checks = Checks::default();
    let captured = checks.register("capture");
    let configured = checks.register("configuration");
    let enrolled = checks.register("pods");
    captured.failed("the eBPF programs are not attached yet");
    configured.failed("no configuration has been read yet");
    enrolled.failed("no pod has been enrolled yet");

    // What needs privileges first: an attempt without them leaves nothing behind.
    let broker = Arc::new(Broker::start(&broker_settings(config, succeeds)?)?);
    if broker.waits_for_pods() {
        captured
            .failed("waiting for a configuration, to take over from an agent with another layout of maps");
    } else {
        captured.ok();
    }
    let given = TrustFiles {
        bundle: config.trust_bundle.clone(),
        crl: config.crl.clone(),
    };
    let authority = CertificateAuthority::open(&config.state_dir, &settings.trust_domains, given)?;
    let certificates = CertStore::new(authority, config.certificate_ttl);

    let tunnel_stats = Arc::new(TunnelStats::default());
    let tunnel = TunnelSettings::default();
    let context = Arc::new(Context {
        node: config.node.as_str().into(),
        balancer: Balancer::new(Some(broker.endpoint_loads())),
        broker,
        duty: Duty::default(),
        mesh: Current::new(Mesh::empty(&settings)),
        certificates,
        pool: Pool::new(tunnel.clone(), tunnel_stats.clone()),
        tunnel,
        tunnel_stats,
        handshakes: Arc::default(),
        observer: observer.clone(),
        verdicts: Verdicts::default(),
        pods: LocalPods::default(),
        slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        shed: Default::default(),
        waits: Waits::default(),
    });
    let report = Arc::new(configuration::Report::default());
    numbers::register(&context, &report, &checks);

    let health = Health {
        observer: observer.clone(),
        live: Checks::default(),
        ready: checks,
    };
    let state = admin::State::new(config, context.clone(), report.clone(), data.handle().clone());
    let predecessor = Predecessor {
        asked: state.handover_asked(),
        context: context.clone(),
        ends: AtomicBool::new(false),
    };
    let mut front = Front::new(state, health, log);
    front.open(config, succeeds).await?;
    tokio::spawn(context.certificates.clone().run(stop.clone()));
    tokio::spawn(trust::follow(context.certificates.clone(), stop.clone()));
    tokio::spawn(reopen_on_hangup(observer.clone(), signal(SignalKind::hangup())?));
    data.spawn(kernel_events::log(context.clone()));
    data.spawn(passages::follow(context.clone()));
    data.spawn(Verdicts::follow_ways(context.clone()));
    data.spawn(pods::make_room(context.clone()));
    let broker = context.broker.clone();
    data.spawn(async move {
        if let Err(error) = broker.log_diagnostics().await {
            tracing::warn!(%error, "cannot follow the eBPF programs' diagnostics");
        }
    });

    let updates = FilesSource::new(&config.config_dir, settings)
        .with_last_good(LastGood::new(&config.state_dir, &config.instance))
        .watch(stop.clone());
    let follower = configuration::Follower {
        context: context.clone(),
        report,
        captured,
        configured,
        enrolled,
        data: data.handle().clone(),
        behind: None,
    };
    tracing::info!(node = %config.node, instance = %config.instance, "started");
    tokio::select! {
        () = follower.run(updates) => anyhow::bail!("the configuration source ended"),
        result = take_turns(config, &predecessor, &mut front, data) => result?,
        result = told_to_end(config, &predecessor) => result?,
    }
    stop.cancel();
    front.close().await;
    Ok(())
}

/// A connection takes two descriptors, and many systems start a process with room for 1,024.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) if limit < 2 * MAX_CONNECTIONS as u64 => {
            tracing::warn!(
                limit,
                "fewer descriptors than connections at the agent's bound need"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open descriptors"),
    }
}

/// Ends with SIGTERM or SIGINT: at once, or, where a successor has the kernel, when the connections have ended.
async fn told_to_end(config: &RunConfig, predecessor: &Predecessor) -> anyhow::Result<()> {
    asked_to_stop().await?;
    if predecessor.context.duty.is_on() {
        tracing::info!("stopping; pods stay captured and their new connections fail until an agent is back");
        return Ok(());
    }
    tokio::select! {
        () = predecessor.drain(config.drain_timeout) => Ok(()),
        // A second signal is impatience.
        result = asked_to_stop() => result,
    }
}

/// Serves until a successor asks, then stands by until it is gone, and so on.
async fn take_turns(
    config: &RunConfig,
    predecessor: &Predecessor,
    front: &mut Front,
    data: &Runtime,
) -> anyhow::Result<()> {
    let context = &predecessor.context;
    loop {
        predecessor.step_aside().await;
        front.close().await;
        predecessor.outlive().await;
        pods::forget_rows(context);
        context.verdicts.forget_all();
        context.balancer.attach();
        context.duty.resume();
        configuration::reconcile(context, data.handle()).await;
        front.open(config, true).await?;
    }
}

fn broker_settings(config: &RunConfig, succeeds: bool) -> anyhow::Result<BrokerSettings> {
    let cgroup = match &config.cgroup_root {
        Some(given) => given.clone(),
        None => broker::cgroup_root().context("finding the cgroup2 root; name it with --cgroup-root")?,
    };
    Ok(BrokerSettings {
        bpffs: config.bpffs.clone(),
        instance: config.instance.clone(),
        cgroup,
        kubelet_cgroup: config.kubelet_cgroup.clone(),
        proc: config.proc.clone(),
        succeeds,
    })
}

/// What log rotation sends; without a handler it would end the agent.
async fn reopen_on_hangup(observer: Arc<Observer>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        tracing::info!("SIGHUP: opening the access log anew");
        observer.access_log().reopen();
    }
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// What `tramline doctor` tries of eBPF.
pub fn kernel_checks(args: &DoctorArgs) -> Vec<Check> {
    match args.cgroup_root.clone().map_or_else(broker::cgroup_root, Ok) {
        Ok(cgroup) => broker::checks(&cgroup),
        Err(error) => vec![Check::failed(
            "eBPF at the cgroup root",
            error.to_string(),
            "mount -t cgroup2 none /sys/fs/cgroup/unified, or name the mount with --cgroup-root",
        )],
    }
}
