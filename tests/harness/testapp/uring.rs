//! A connection made, written and read through io_uring, by the safe interface of `tokio-uring`.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_uring::net::TcpStream;

use crate::errors;

/// Connects by `IORING_OP_CONNECT`, sends `payload`, half-closes, reads to the end; the report of [`crate::client`].
pub(crate) fn exchange(to: SocketAddr, payload: Vec<u8>, limit: Duration) -> Value {
    let start = Instant::now();
    tokio_uring::start(async move {
        let connected = timeout(limit, TcpStream::connect(to)).await;
        let stream = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => stream,
            Err(error) => {
                return json!({"connect": errors::name(&error), "connect_us": start.elapsed().as_micros()});
            }
        };
        let mut report = json!({"connect": "ok", "connect_us": start.elapsed().as_micros()});
        let fd = stream.as_raw_fd();
        report["local"] = json!(shown(getsockname(fd)));
        report["peer"] = json!(shown(getpeername(fd)));
        let mut received = Vec::new();
        let talk = timeout(limit, talk(&stream, payload, &mut received)).await;
        let end = match talk.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(()) => "eof".to_owned(),
            Err(error) => errors::name(&error),
        };
        report["end"] = json!(end);
        report["received_bytes"] = json!(received.len());
        report["received"] = json!(String::from_utf8_lossy(&received[..received.len().min(256)]));
        report
    })
}

async fn talk(stream: &TcpStream, payload: Vec<u8>, received: &mut Vec<u8>) -> io::Result<()> {
    stream.write_all(payload).await.0?;
    stream.shutdown(Shutdown::Write)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let (read, back) = stream.read(buffer).await;
        buffer = back;
        match read? {
            0 => return Ok(()),
            n => received.extend_from_slice(&buffer[..n]),
        }
    }
}

fn shown(address: nix::Result<SockaddrStorage>) -> String {
    address.map_or_else(|errno| format!("{errno:?}"), |storage| storage.to_string())
}
