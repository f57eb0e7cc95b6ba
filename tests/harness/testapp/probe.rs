//! New verified connections at a steady pace, each outcome reported, until standard input ends.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use crate::{errors, out, server, storm};

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// An echo server.
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 20)]
    interval_ms: u64,
    #[arg(long, default_value_t = 1000)]
    timeout_ms: u64,
    /// Connections under way at once. With more than one, those that could not begin in their turn are made up for, so that
    /// there are as many as the interval says; one alone waits for its answer and then for the interval.
    #[arg(long, default_value_t = 1)]
    at_once: usize,
}

impl Probe {
    pub(crate) async fn run(self) -> Result<()> {
        out::line(&json!({"event": "probing"}))?;
        let start = Instant::now();
        let mut ticks = tokio::time::interval(Duration::from_millis(self.interval_ms));
        ticks.set_missed_tick_behavior(if self.at_once > 1 {
            MissedTickBehavior::Burst
        } else {
            MissedTickBehavior::Delay
        });
        let ended = server::input_ended(false);
        tokio::pin!(ended);
        let mut under_way = JoinSet::new();
        let mut number = 0;
        loop {
            tokio::select! {
                _ = ticks.tick(), if under_way.len() < self.at_once => {
                    under_way.spawn(self.once(start, number));
                    number += 1;
                }
                Some(done) = under_way.join_next() => done??,
                () = &mut ended => break,
            }
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn once(self, start: Instant, number: u64) -> Result<()> {
        let limit = Duration::from_millis(self.timeout_ms);
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
        }))
    }
}

/// The clock that all processes of the machine share.
fn clock() -> Result<i64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.num_nanoseconds())
}
