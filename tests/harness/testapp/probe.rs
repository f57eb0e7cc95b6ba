//! A new verified connection every few milliseconds, each outcome reported, until standard input ends.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::time::timeout;

use crate::{errors, out, server, storm};

#[derive(Args, Debug)]
pub(crate) struct Probe {
    /// An echo server.
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 20)]
    interval_ms: u64,
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
}

impl Probe {
    pub(crate) async fn run(self) -> Result<()> {
        out::line(&json!({"event": "probing"}))?;
        let start = Instant::now();
        let limit = Duration::from_millis(self.timeout_ms);
        let mut ticks = tokio::time::interval(Duration::from_millis(self.interval_ms));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let ended = server::input_ended(false);
        tokio::pin!(ended);
        for number in 0_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = &mut ended => return Ok(()),
            }
            let begun = start.elapsed();
            let begun_ns = clock()?;
            let done = timeout(limit, storm::once(self.to, number, 64)).await;
            let result = match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => "ok".to_owned(),
                Err(error) => errors::name(&error),
            };
            let us = (start.elapsed() - begun).as_micros();
            out::line(&json!({
                "event": "probe",
                "at_ms": begun.as_millis(),
                "begun_ns": begun_ns,
                "ended_ns": clock()?,
                "us": us,
                "result": result,
            }))?;
        }
        Ok(())
    }
}

/// The clock that all processes of the machine share.
fn clock() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.num_nanoseconds())
}
