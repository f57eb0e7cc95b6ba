//! Connections to several addresses, one after the other and some times over; of each whether it was answered.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{errors, out, storm};

#[derive(Args, Debug)]
pub(crate) struct Knock {
    /// Echo servers.
    #[arg(long, required = true, value_delimiter = ',')]
    to: Vec<SocketAddr>,
    /// Rounds over all of them.
    #[arg(long, default_value_t = 1)]
    times: u64,
    /// Between two rounds.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    /// For one whole connection.
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
}

impl Knock {
    pub(crate) async fn run(self) -> Result<()> {
        let limit = Duration::from_millis(self.timeout_ms);
        for round in 0..self.times {
            if round > 0 {
                sleep(Duration::from_millis(self.pause_ms)).await;
            }
            for to in &self.to {
                let done = timeout(limit, storm::once(*to, round, 64)).await;
                let result = match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(()) => "ok".to_owned(),
                    Err(error) => errors::name(&error),
                };
                out::line(&json!({"to": to, "round": round, "result": result}))?;
            }
        }
        Ok(())
    }
}
