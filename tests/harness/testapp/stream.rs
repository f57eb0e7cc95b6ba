//! Connections over which bytes go back and forth without pause, until standard input ends.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::{errors, out, server, storm};

#[derive(Args, Debug)]
pub(crate) struct Stream {
    /// An echo server.
    #[arg(long)]
    to: SocketAddr,
    #[arg(long, default_value_t = 10)]
    count: u64,
    /// Bytes of one message; the next follows its echo.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    #[arg(long, default_value_t = 5)]
    pause_ms: u64,
    /// For making a connection, and for one message.
    #[arg(long, default_value_t = 10_000)]
    timeout_ms: u64,
}

impl Stream {
    pub(crate) async fn run(self) -> Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut streams = JoinSet::new();
        for number in 0..self.count {
            streams.spawn(self.one(number, stopped.clone()));
        }
        out::line(&json!({"event": "streaming"}))?;
        server::input_ended(false).await;
        stop.send_replace(true);
        let (mut messages, mut whole, mut failed) = (0, 0, BTreeMap::<String, u64>::new());
        while let Some(ended) = streams.join_next().await {
            let (sent, result) = ended?;
            messages += sent;
            match result {
                Ok(()) => whole += 1,
                Err(error) => *failed.entry(errors::name(&error)).or_default() += 1,
            }
        }
        out::line(&json!({"event": "done", "whole": whole, "messages": messages, "errors": failed}))
    }

    fn one(
        &self,
        number: u64,
        stopped: watch::Receiver<bool>,
    ) -> impl Future<Output = (u64, io::Result<()>)> + Send + 'static {
        let (to, bytes) = (self.to, self.bytes);
        let (pause, limit) = (
            Duration::from_millis(self.pause_ms),
            Duration::from_millis(self.timeout_ms),
        );
        async move {
            let mut sent = 0;
            let run = async {
                let mut stream = timeout(limit, TcpStream::connect(to)).await??;
                while !*stopped.borrow() {
                    timeout(limit, storm::verify(&mut stream, number ^ sent << 20, bytes)).await??;
                    sent += 1;
                    sleep(pause).await;
                }
                Ok(())
            };
            let result = run.await;
            (sent, result)
        }
    }
}
