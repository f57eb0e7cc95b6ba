//! What people and Prometheus see: admin socket and health port, closed while a successor answers there.

use super::admin::State;
use crate::{
    cli::RunConfig,
    observe::{
        admin::{AdminServer, SocketError},
        logging::LogControl,
        server::{Health, Server},
    },
};
use anyhow::Result;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A predecessor closes its own within milliseconds after it has stepped aside.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Admin socket and health port of one agent.
pub(super) struct Front {
    state: State,
    health: Health,
    log: LogControl,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Front {
    pub(super) fn new(state: State, health: Health, log: LogControl) -> Self {
        Self {
            state,
            health,
            log,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Opens both; where another agent is about to close its own, waits for that.
    ///
    /// # Errors
    /// They cannot be opened.
    pub(super) async fn open(&mut self, config: &RunConfig, succeeds: bool) -> Result<()> {
        let deadline = Instant::now() + if succeeds { PATIENCE } else { Duration::ZERO };
        self.stop = CancellationToken::new();
        let admin = loop {
            let (state, health) = (self.state.clone(), self.health.clone());
            match AdminServer::bind(&config.admin_socket, state, health, self.log.clone()) {
                Err(SocketError::InUse(_)) if Instant::now() < deadline => sleep(LOOK).await,
                bound => break bound?,
            }
        };
        self.tasks.spawn(admin.run(self.stop.clone()));
        let Some(address) = config.metrics_address.0 else {
            return Ok(());
        };
        let metrics = loop {
            match Server::bind(address, self.health.clone()).await {
                Err(error) if error.is_taken() && Instant::now() < deadline => sleep(LOOK).await,
                bound => break bound?,
            }
        };
        self.tasks.spawn(metrics.run(self.stop.clone()));
        Ok(())
    }

    /// Closes both; another agent can open its own when this returns.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
