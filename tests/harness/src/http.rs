//! The smallest HTTP client that reads an agent's health and metrics from inside its namespace.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

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
    let limit = Duration::from_secs(2);
    let mut stream = netns.connect(address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
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
