//! Connections that carry a known sequence of bytes to an echo server and back, and end each direction by itself.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{errors, out};

#[derive(Args, Debug)]
pub(crate) struct Transfer {
    /// An echo server.
    #[arg(long)]
    to: SocketAddr,
    /// Connections at once, each with a sequence of its own.
    #[arg(long, default_value_t = 4)]
    count: u64,
    /// Bytes each way on each.
    #[arg(long, default_value_t = 1 << 17)]
    bytes: usize,
    /// For one whole connection.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,
}

impl Transfer {
    pub(crate) async fn run(self) -> Result<()> {
        let start = Instant::now();
        let limit = Duration::from_millis(self.timeout_ms);
        let mut connections = JoinSet::new();
        for number in 0..self.count {
            let (to, bytes) = (self.to, self.bytes);
            connections.spawn(async move {
                let done = timeout(limit, one(to, number, bytes)).await;
                done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            });
        }
        let (mut whole, mut failed) = (0, BTreeMap::<String, u64>::new());
        while let Some(ended) = connections.join_next().await {
            match ended? {
                Ok(()) => whole += 1,
                Err(error) => *failed.entry(errors::name(&error)).or_default() += 1,
            }
        }
        out::line(&json!({"whole": whole, "errors": failed, "ms": start.elapsed().as_millis()}))
    }
}

/// Everything there and back: our end of input comes before most of the echo, which the other direction must not mind.
async fn one(to: SocketAddr, number: u64, bytes: usize) -> io::Result<()> {
    let stream = TcpStream::connect(to).await?;
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        let mut sequence = Sequence::new(number);
        let mut buffer = vec![0; 16 * 1024];
        let mut left = bytes;
        while left > 0 {
            let n = left.min(buffer.len());
            sequence.fill(&mut buffer[..n]);
            writer.write_all(&buffer[..n]).await?;
            left -= n;
        }
        writer.shutdown().await
    };
    let read = async {
        let mut expected = Sequence::new(number);
        let (mut buffer, mut wanted) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        let mut seen = 0;
        loop {
            let n = reader.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            expected.fill(&mut wanted[..n]);
            if buffer[..n] != wanted[..n] {
                let why = "other bytes, or in another order";
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            seen += n;
        }
        match seen == bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    tokio::try_join!(write, read).map(drop)
}

/// Bytes in which no stretch is like another: one that is missing, doubled or misplaced shows.
struct Sequence(u64);

impl Sequence {
    fn new(number: u64) -> Self {
        Self(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            // xorshift64 (Marsaglia 2003).
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_be_bytes()[0];
        }
    }
}
