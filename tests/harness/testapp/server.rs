//! A TCP server that ends its connections in every manner there is.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde_json::json;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::{errors, out};

#[derive(Args, Clone, Debug)]
pub(crate) struct Server {
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum, default_value_t = Manner::Echo)]
    manner: Manner,
    /// Speaks MPTCP with clients that do.
    #[arg(long)]
    mptcp: bool,
    /// Bytes that `source` sends.
    #[arg(long, default_value_t = 1 << 20)]
    bytes: usize,
    /// Goes on after the end of standard input.
    #[arg(long)]
    forever: bool,
    /// No line per connection.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Manner {
    /// Sends back what comes; after the end of input, ends too.
    Echo,
    /// Reads all, then says how much it was: needs a half-close that arrives.
    ReplyAfterEof,
    /// Says something and closes at once.
    GreetAndClose,
    /// Says something, ends its own direction, goes on reading.
    GreetAndHalfClose,
    /// Reads once, then resets.
    Reset,
    /// Reads all and says nothing.
    Sink,
    /// Sends many bytes, then closes.
    Source,
    /// Accepts and never reads.
    Silent,
}

impl Server {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = listen(self.port, self.mptcp)?;
        out::line(&json!({"event": "listening", "port": self.port}))?;
        let ended = input_ended(self.forever);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, peer) = accepted?;
                    let server = self.clone();
                    tokio::spawn(async move { server.serve(stream, plain(peer)).await });
                }
                () = &mut ended => return Ok(()),
            }
        }
    }

    async fn serve(&self, mut stream: TcpStream, peer: SocketAddr) -> Result<()> {
        let local = plain(stream.local_addr()?);
        if !self.quiet {
            out::line(&json!({"event": "accepted", "peer": peer, "local": local}))?;
        }
        let mut seen = Seen::default();
        let end = match self.act(&mut stream, &mut seen).await {
            Ok(()) => "eof".to_owned(),
            Err(error) => errors::name(&error),
        };
        if !self.quiet {
            let text = String::from_utf8_lossy(&seen.first).into_owned();
            out::line(
                &json!({"event": "closed", "peer": peer, "bytes": seen.bytes, "text": text, "end": end}),
            )?;
        }
        Ok(())
    }

    async fn act(&self, stream: &mut TcpStream, seen: &mut Seen) -> std::io::Result<()> {
        const GREETING: &[u8] = b"greetings from the server";
        let mut buffer = vec![0; 16 * 1024];
        match self.manner {
            Manner::Echo => loop {
                let n = stream.read(&mut buffer).await?;
                if n == 0 {
                    return stream.shutdown().await;
                }
                seen.take(&buffer[..n]);
                stream.write_all(&buffer[..n]).await?;
            },
            Manner::ReplyAfterEof => {
                seen.drain(stream, &mut buffer).await?;
                stream
                    .write_all(format!("got {} bytes", seen.bytes).as_bytes())
                    .await?;
                stream.shutdown().await
            }
            Manner::GreetAndClose => stream.write_all(GREETING).await,
            Manner::GreetAndHalfClose => {
                stream.write_all(GREETING).await?;
                stream.shutdown().await?;
                seen.drain(stream, &mut buffer).await
            }
            Manner::Reset => {
                let n = stream.read(&mut buffer).await?;
                seen.take(&buffer[..n]);
                SockRef::from(&*stream).set_linger(Some(Duration::ZERO))
            }
            Manner::Sink => seen.drain(stream, &mut buffer).await,
            Manner::Source => {
                buffer.fill(b's');
                let mut left = self.bytes;
                while left > 0 {
                    let n = left.min(buffer.len());
                    stream.write_all(&buffer[..n]).await?;
                    left -= n;
                }
                stream.shutdown().await
            }
            Manner::Silent => std::future::pending().await,
        }
    }
}

#[derive(Default)]
struct Seen {
    bytes: usize,
    first: Vec<u8>,
}

impl Seen {
    /// Enough for the marker of a test.
    const KEPT: usize = 256;

    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let room = Self::KEPT.saturating_sub(self.first.len()).min(bytes.len());
        self.first.extend_from_slice(&bytes[..room]);
    }

    async fn drain(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
        loop {
            let n = stream.read(buffer).await?;
            if n == 0 {
                return Ok(());
            }
            self.take(&buffer[..n]);
        }
    }
}

/// Listens on both families.
pub(crate) fn listen(port: u16, mptcp: bool) -> Result<TcpListener> {
    let protocol = if mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(protocol))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket
        .bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())
        .context("bind")?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into())?)
}

/// An IPv4 address as such, also where the socket calls it v4-mapped.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns when standard input has ended, unless `forever`: whoever started us is gone or has let go.
pub(crate) async fn input_ended(forever: bool) {
    if forever {
        return std::future::pending().await;
    }
    let mut lines = input();
    while lines.recv().await.is_some() {}
}

/// The lines of standard input, read on a thread of their own: the blocking read cannot be cancelled.
pub(crate) fn input() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
