//! Connections in one direction, as fast as they go.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::connect;
use crate::load::{Outcome, SINK_PORT};

/// Counts what the server says it has read, over the time until it said so: what is still in buffers is not throughput.
pub(super) fn run(server: Ipv4Addr, write: usize, length: Duration, streams: usize) -> Result<Outcome> {
    let begin = Barrier::new(streams + 1);
    let (sent, seconds) = thread::scope(|scope| {
        let threads: Vec<_> = (0..streams)
            .map(|_| scope.spawn(|| one(server, write, length, &begin)))
            .collect();
        begin.wait();
        let start = Instant::now();
        let mut sent = 0;
        for thread in threads {
            sent += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        anyhow::Ok((sent, start.elapsed().as_secs_f64()))
    })?;
    Ok(Outcome {
        seconds,
        units: sent,
        performed: sent,
        latency: None,
    })
}

fn one(server: Ipv4Addr, write: usize, length: Duration, begin: &Barrier) -> Result<u64> {
    let buffer = vec![b's'; write];
    let connected = connect(server, SINK_PORT);
    // Also without a connection: the others wait for this one.
    begin.wait();
    let mut stream = connected?;
    let mut sent = 0_u64;
    let start = Instant::now();
    while start.elapsed() < length {
        stream.write_all(&buffer).context("send the stream")?;
        sent += buffer.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count).context("the server's count")?;
    let received = u64::from_be_bytes(count);
    ensure!(received == sent, "{sent} bytes sent, {received} received");
    Ok(sent)
}
