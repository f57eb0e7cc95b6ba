//! The smallest HTTP client that reads an agent's health and metrics from inside its namespace, and its admin socket.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// For one answer.
const LIMIT: Duration = Duration::from_secs(2);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// `GET path` at `address`, within two seconds.
///
/// # Errors
/// Nobody listens, or what answers is not HTTP.
pub fn get(netns: &Netns, address: SocketAddr, path: &str) -> Result<Answer> {
    let stream = netns.connect(address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    exchange(stream, path)
}

/// `GET path` at a unix socket, within two seconds: what `tramline` asks, without its start.
///
/// # Errors
/// Nobody listens, or what answers is not HTTP.
pub fn get_unix(socket: &Path, path: &str) -> Result<Answer> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    exchange(stream, path)
}

fn exchange(mut stream: impl Read + Write, path: &str) -> Result<Answer> {
    // HTTP/1.0: the answer ends with the connection, so there is no chunking to undo.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream
        .read_to_end(&mut bytes)
        .with_context(|| format!("read the answer to GET {path}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .with_context(|| format!("not HTTP: {text:?}"))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .context("no status code")?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}
