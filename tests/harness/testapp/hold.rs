//! Many connections open at once, each proven alive when asked.
//!
//! A line on standard input asks: all connections are verified again. Its end closes them all.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{errors, out, server, storm};

#[derive(Args, Debug)]
pub(crate) struct Hold {
    /// An echo server.
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// For making and for verifying one connection.
    #[arg(long, default_value_t = 20_000)]
    timeout_ms: u64,
}

type Outcome = (u64, io::Result<TcpStream>);

impl Hold {
    pub(crate) async fn run(self) -> Result<()> {
        let limit = Duration::from_millis(self.timeout_ms);
        let mut making = JoinSet::new();
        for number in 0..self.count {
            let to = self.to;
            making.spawn(bounded(
                limit,
                number,
                async move { TcpStream::connect(to).await },
            ));
        }
        let mut open = gather(making, "held").await?;
        let mut lines = server::input();
        while lines.recv().await.is_some() {
            let mut asking = JoinSet::new();
            for (number, stream) in open.drain(..) {
                asking.spawn(bounded(limit, number, async move { Ok(stream) }));
            }
            open = gather(asking, "checked").await?;
        }
        drop(open);
        out::line(&json!({"event": "done"}))
    }
}

async fn bounded(
    limit: Duration,
    number: u64,
    stream: impl Future<Output = io::Result<TcpStream>> + Send,
) -> Outcome {
    let work = async {
        let mut stream = stream.await?;
        storm::verify(&mut stream, number, 64).await?;
        Ok(stream)
    };
    (
        number,
        timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    )
}

async fn gather(mut tasks: JoinSet<Outcome>, event: &str) -> Result<Vec<(u64, TcpStream)>> {
    let mut open = Vec::new();
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(outcome) = tasks.join_next().await {
        match outcome? {
            (number, Ok(stream)) => open.push((number, stream)),
            (_, Err(error)) => *failed.entry(errors::name(&error)).or_default() += 1,
        }
    }
    out::line(&json!({"event": event, "alive": open.len(), "errors": failed}))?;
    Ok(open)
}
