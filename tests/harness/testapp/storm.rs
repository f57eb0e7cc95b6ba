//! Many short connections: each sends its own number, checks the echo and closes first.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{errors, out};

#[derive(Args, Debug)]
pub(crate) struct Storm {
    /// Echo servers, taken in turn.
    #[arg(long, required = true, value_delimiter = ',')]
    to: Vec<SocketAddr>,
    /// Connections in all.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Connections at once.
    #[arg(long, default_value_t = 1)]
    concurrency: u64,
    /// Bytes sent and echoed on each, at least 8.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// For one whole connection.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
}

/// What one worker counted.
#[derive(Debug, Default)]
struct Tally {
    ok: u64,
    errors: BTreeMap<String, u64>,
    micros: Vec<u64>,
}

impl Storm {
    pub(crate) async fn run(self) -> Result<()> {
        if self.bytes < 8 {
            bail!("--bytes must hold the number of the connection: at least 8");
        }
        let start = Instant::now();
        let storm = Arc::new(self);
        let next = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..storm.concurrency {
            let (storm, next) = (Arc::clone(&storm), Arc::clone(&next));
            workers.spawn(async move { storm.work(&next).await });
        }
        let mut total = Tally::default();
        while let Some(tally) = workers.join_next().await {
            let tally = tally?;
            total.ok += tally.ok;
            total.micros.extend(tally.micros);
            for (name, n) in tally.errors {
                *total.errors.entry(name).or_default() += n;
            }
        }
        total.micros.sort_unstable();
        let at = |percent: usize| {
            total
                .micros
                .get(total.micros.len() * percent / 100)
                .copied()
                .unwrap_or(0)
        };
        let seconds = start.elapsed().as_secs_f64();
        out::line(&json!({
            "ok": total.ok,
            "failed": total.errors.values().sum::<u64>(),
            "errors": total.errors,
            "seconds": seconds,
            "p50_us": at(50),
            "p99_us": at(99),
        }))
    }

    async fn work(&self, next: &AtomicU64) -> Tally {
        let mut tally = Tally::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.count {
                return tally;
            }
            let start = Instant::now();
            let limit = Duration::from_millis(self.timeout_ms);
            let index = usize::try_from(number).unwrap_or(0) % self.to.len();
            let done = timeout(limit, once(self.to[index], number, self.bytes)).await;
            match done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => {
                    tally.ok += 1;
                    tally
                        .micros
                        .push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
                Err(error) => *tally.errors.entry(errors::name(&error)).or_default() += 1,
            }
        }
    }
}

/// One connection: echo of `bytes` bytes that begin with `number`, then our close.
pub(crate) async fn once(to: SocketAddr, number: u64, bytes: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    verify(&mut stream, number, bytes).await
}

/// Sends a message that no other connection sends and reads it back.
pub(crate) async fn verify(stream: &mut TcpStream, number: u64, bytes: usize) -> io::Result<()> {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(bytes, b'm');
    stream.write_all(&message).await?;
    let mut echoed = vec![0; message.len()];
    stream.read_exact(&mut echoed).await?;
    if echoed != message {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "another connection's bytes",
        ));
    }
    Ok(())
}
