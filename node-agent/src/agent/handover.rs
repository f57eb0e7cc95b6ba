//! An upgrade: a new agent beside the old one, as a DaemonSet with `maxSurge` starts it.
//!
//! | moment | pins, maps, events | new connections | admin socket, health port |
//! |---|---|---|---|
//! | the successor starts | old | old | old |
//! | it has read its configuration and asks (`POST /handover`) | old, until nothing is being written | old | old |
//! | the old one steps aside (unlocks the pins) | nobody, for milliseconds | old: its listeners are still in the map | closed |
//! | the successor locks the pins, replaces the programs (where it has other layouts of maps, after it has described the pods in its own) | new | old | new |
//! | it enrols a pod: its listeners replace the old ones | new | new, pod by pod | new |
//! | SIGTERM to the old one | new | new | new |
//!
//! The old one carries on with the connections it has, tells the other nodes to open new tunnels, and ends on SIGTERM
//! when its connections and the other nodes' tunnels have ended or its time is over. Should the successor die before, the old one takes everything
//! back.

use crate::{
    broker::{Ring, Succession},
    cli::{self, RunConfig},
    context::Context,
    discover::FilesSource,
    inbound::SUCCESSION,
    pods,
};
use anyhow::Context as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tramline_core::mesh::MeshSettings;

/// How long the kernel waits for a successor that asked for it.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Between looks whether the successor lives.
const LOOK: Duration = Duration::from_millis(250);
/// The pins have to be free for so many looks: they change hands too when the successor has a successor.
const LOOKS: u32 = 3;
/// The same for an agent that has been told to end: one that has not comes before it.
const LOOKS_AT_THE_END: u32 = 24;

/// Asks the agent that runs, if there is one, for the kernel. Answers whether there is one.
///
/// # Errors
/// It does not hand over, or this agent would have no configuration to go on with.
pub(super) fn ask(config: &RunConfig, settings: &MeshSettings) -> anyhow::Result<bool> {
    if !config.takeover || !cli::is_answered(&config.admin_socket) {
        return Ok(false);
    }
    FilesSource::new(&config.config_dir, settings.clone())
        .load_once()
        .context("the agent that runs stays: its successor cannot read the configuration")?;
    cli::ask_for_handover(&config.admin_socket)
        .map_err(anyhow::Error::msg)
        .context("the agent that runs does not hand over; stop it first")?;
    tracing::info!("another agent runs and steps aside");
    Ok(true)
}

/// For the old agent: resolves when a successor's programs have taken the place of its own, with whether they write to
/// another ring buffer. Then nobody else reads what is left in this one.
pub(super) async fn is_left(context: &Context, ring: Ring) -> bool {
    while !context.duty.is_on() {
        match context.broker.succession(ring) {
            Ok(Succession::NotYet) => {}
            Ok(Succession::Shares) => return false,
            Ok(Succession::Apart) => return true,
            Err(error) => {
                tracing::warn!(%error, ?ring, "cannot tell who reads a ring buffer; some lines may be missing");
                return false;
            }
        }
        sleep(LOOK).await;
    }
    false
}

/// The old agent's part: waits to be asked, steps aside, and takes the kernel back if the successor dies.
pub(super) struct Predecessor {
    pub(super) asked: Arc<Notify>,
    pub(super) context: Arc<Context>,
    /// Whether this agent has been told to end.
    pub(super) ends: AtomicBool,
}

impl Predecessor {
    /// Waits for a successor's question and steps aside. The admin socket and the health port are to be closed next.
    pub(super) async fn step_aside(&self) {
        self.asked.notified().await;
        let (balancer, broker) = (&self.context.balancer, &self.context.broker);
        let step_aside = || {
            balancer.detach();
            broker.step_aside();
        };
        self.context.duty.leave(step_aside).await;
        tracing::info!(
            connections = self.context.observer.connections().len(),
            "stepped aside for another agent; connections that are open go on here"
        );
    }

    /// Waits until the successor is gone, and takes programs and listeners back. The pods' rows are to be written
    /// next, then [`crate::duty::Duty::resume`] called.
    pub(super) async fn outlive(&self) {
        self.arrival().await;
        let mut free = 0;
        loop {
            sleep(LOOK).await;
            free = if self.context.broker.is_free() {
                free + 1
            } else {
                0
            };
            let enough = match self.ends.load(Relaxed) {
                false => LOOKS,
                true => LOOKS_AT_THE_END,
            };
            if free < enough {
                continue;
            }
            let rows = pods::present_rows(&self.context);
            match self.context.broker.take_back(&rows).await {
                Ok(lost) => {
                    pods::give_up(&self.context, &lost);
                    break;
                }
                Err(error) => tracing::warn!(%error, "cannot take the kernel back yet"),
            }
        }
        tracing::warn!("the agent that took over is gone; this one carries on");
    }

    async fn arrival(&self) {
        let deadline = Instant::now() + ARRIVAL;
        while self.context.broker.is_free() && Instant::now() < deadline {
            sleep(LOOK / 10).await;
        }
    }

    /// Waits for the connections to end, at most for `grace`: those it carries, and the tunnels of other nodes. A tunnel
    /// without a stream may get one at any moment, which would fail with the agent; it ends by GOAWAY, which the tunnels
    /// send [`SUCCESSION`] after the agent was relieved. What still waited to be accepted is there by then too.
    pub(super) async fn drain(&self, grace: Duration) {
        self.ends.store(true, Relaxed);
        let open = || self.context.observer.connections().len();
        let tunnels = || self.context.tunnel_stats.connections_open_server.load(Relaxed);
        tracing::info!(connections = open(), tunnels = tunnels(), ?grace, "draining");
        let deadline = Instant::now() + grace;
        let told = self.context.duty.left_for(SUCCESSION);
        let _ = timeout_at(deadline, told).await;
        while (open() > 0 || tunnels() > 0) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
        tracing::info!(cut = open(), tunnels = tunnels(), "drained");
    }
}
