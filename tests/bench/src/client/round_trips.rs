//! A message there and back, one after the other on one connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::connect;
use crate::load::{ECHO_PORT, Outcome};
use crate::statistics;

/// Enough for the windows to have opened and the caches to be warm.
const WARM_UP: usize = 200;

pub(super) fn run(server: Ipv4Addr, size: usize, length: Duration) -> Result<Outcome> {
    let mut stream = connect(server, ECHO_PORT)?;
    let announced = u32::try_from(size).context("the size of a message")?;
    stream.write_all(&announced.to_be_bytes())?;
    let mut message = vec![b'r'; size];
    for _ in 0..WARM_UP {
        round_trip(&mut stream, &mut message)?;
    }
    let mut each = Vec::with_capacity(100_000);
    let start = Instant::now();
    while start.elapsed() < length {
        let begin = Instant::now();
        round_trip(&mut stream, &mut message)?;
        each.push(begin.elapsed());
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Outcome {
        seconds,
        units: each.len() as u64,
        performed: (each.len() + WARM_UP) as u64,
        latency: statistics::latency(each),
    })
}

fn round_trip(stream: &mut TcpStream, message: &mut [u8]) -> Result<()> {
    stream.write_all(message).context("send a message")?;
    stream.read_exact(message).context("get a message back")
}
