//! One connection, one direction, as fast as it goes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::connect;
use crate::load::{Outcome, SINK_PORT};

/// Counts what the server says it has read, over the time until it said so: what is still in buffers is not throughput.
pub(super) fn run(server: Ipv4Addr, write: usize, length: Duration) -> Result<Outcome> {
    let buffer = vec![b's'; write];
    let mut stream = connect(server, SINK_PORT)?;
    let mut sent = 0_u64;
    let start = Instant::now();
    while start.elapsed() < length {
        stream.write_all(&buffer).context("send the stream")?;
        sent += buffer.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count).context("the server's count")?;
    let seconds = start.elapsed().as_secs_f64();
    let received = u64::from_be_bytes(count);
    ensure!(received == sent, "{sent} bytes sent, {received} received");
    Ok(Outcome {
        seconds,
        units: sent,
        performed: sent,
        latency: None,
    })
}
