//! One TCP connection: how it is made, what is sent, how it ends, and all that the application can see of it.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendmsg};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{errors, out, uring};

#[derive(Args, Clone, Debug)]
pub(crate) struct Client {
    /// Where to.
    #[arg(long)]
    to: SocketAddr,
    /// How the connection is made.
    #[arg(long, value_enum, default_value_t = How::Blocking)]
    how: How,
    /// The local address, port 0 leaves the port open.
    #[arg(long)]
    bind: Option<SocketAddr>,
    /// `SO_BINDTODEVICE`.
    #[arg(long)]
    device: Option<String>,
    /// `SO_REUSEADDR`.
    #[arg(long)]
    reuse_address: bool,
    /// `SO_REUSEPORT`.
    #[arg(long)]
    reuse_port: bool,
    /// `IP_TRANSPARENT`: any source address.
    #[arg(long)]
    transparent: bool,
    /// `SO_MARK`.
    #[arg(long)]
    mark: Option<u32>,
    /// `IPPROTO_MPTCP`.
    #[arg(long)]
    mptcp: bool,
    /// An IPv6 socket towards the v4-mapped form of an IPv4 address.
    #[arg(long)]
    mapped: bool,
    /// Text to send.
    #[arg(long, default_value = "")]
    send: String,
    /// More bytes to send, after the text.
    #[arg(long, default_value_t = 0)]
    send_bytes: usize,
    /// What follows after sending.
    #[arg(long, value_enum, default_value_t = Then::Shutdown)]
    then: Then,
    /// For `then`: bytes to read before it.
    #[arg(long, default_value_t = 0)]
    read_first: usize,
    /// A pause before `then`.
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// How many such connections, one after the other.
    #[arg(long, default_value_t = 1)]
    count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    Blocking,
    /// `connect` returns EINPROGRESS; `SO_ERROR` and `getpeername` tell the end.
    Nonblocking,
    /// `MSG_FASTOPEN`: the first bytes go with the SYN.
    FastOpen,
    /// `IORING_OP_CONNECT`; half-closes and reads to the end, no other option applies.
    IoUring,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Then {
    /// Ends our direction and reads to the end.
    Shutdown,
    /// Reads to the end.
    Read,
    /// Closes.
    Close,
    /// `SO_LINGER` 0 and close: a reset.
    Reset,
}

impl Client {
    pub(crate) fn run(self) -> Result<()> {
        for _ in 0..self.count {
            out::line(&self.one()?)?;
        }
        Ok(())
    }

    fn one(&self) -> Result<Value> {
        let start = Instant::now();
        let mut payload = self.send.clone().into_bytes();
        payload.resize(payload.len() + self.send_bytes, b'c');
        if self.how == How::IoUring {
            return Ok(uring::exchange(
                self.to,
                payload,
                Duration::from_millis(self.timeout_ms),
            ));
        }
        let mut stream = match self.connect(&mut payload) {
            Ok(stream) => stream,
            Err(Failure::Setup(error)) => return Err(error),
            Err(Failure::Connect(error)) => {
                return Ok(json!({"connect": errors::name(&error), "connect_us": micros(start)}));
            }
        };
        let mut report = json!({"connect": "ok", "connect_us": micros(start)});
        let limit = Duration::from_millis(self.timeout_ms);
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        report["local"] = json!(shown(stream.local_addr()));
        report["peer"] = json!(shown(stream.peer_addr()));
        if let Err(error) = stream.write_all(&payload) {
            report["send_error"] = json!(errors::name(&error));
        }
        let mut received = Vec::new();
        let early = if self.read_first > 0 {
            read_some(&mut stream, &mut received, self.read_first)
        } else {
            Ok(())
        };
        std::thread::sleep(Duration::from_millis(self.pause_ms));
        let end = match (early, self.then) {
            (Err(error), _) => errors::name(&error),
            (Ok(()), Then::Shutdown) => {
                // ENOTCONN when the peer has reset already; reading tells which it was.
                let _ = stream.shutdown(Shutdown::Write);
                read_to_end(&mut stream, &mut received)
            }
            (Ok(()), Then::Read) => read_to_end(&mut stream, &mut received),
            (Ok(()), Then::Close) => "closed".to_owned(),
            (Ok(()), Then::Reset) => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                "reset".to_owned()
            }
        };
        drop(stream);
        report["end"] = json!(end);
        report["received_bytes"] = json!(received.len());
        report["received"] = json!(String::from_utf8_lossy(&received[..received.len().min(256)]));
        report["us"] = json!(micros(start));
        Ok(report)
    }

    fn connect(&self, payload: &mut Vec<u8>) -> Result<TcpStream, Failure> {
        let to = match self.to {
            SocketAddr::V4(v4) if self.mapped => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            other => other,
        };
        let socket = self.socket(to).map_err(Failure::Setup)?;
        let limit = Duration::from_millis(self.timeout_ms);
        match self.how {
            // SO_SNDTIMEO bounds a blocking connect too (socket(7)); connect_timeout would make it a non-blocking one.
            How::Blocking | How::IoUring => {
                socket.set_write_timeout(Some(limit)).map_err(Failure::Connect)?;
                socket.connect(&to.into()).map_err(Failure::Connect)?;
                Ok(socket.into())
            }
            How::Nonblocking => nonblocking(socket, to, limit).map_err(Failure::Connect),
            How::FastOpen => {
                socket.set_write_timeout(Some(limit)).map_err(Failure::Connect)?;
                let sent = fast_open(&socket, to, payload).map_err(Failure::Connect)?;
                payload.drain(..sent);
                Ok(socket.into())
            }
        }
    }

    fn socket(&self, to: SocketAddr) -> Result<Socket> {
        let protocol = if self.mptcp {
            Protocol::MPTCP
        } else {
            Protocol::TCP
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(protocol)).context("socket")?;
        if self.reuse_address {
            socket.set_reuse_address(true)?;
        }
        if self.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if self.transparent && to.is_ipv4() {
            socket.set_ip_transparent_v4(true).context("IP_TRANSPARENT")?;
        } else if self.transparent {
            socket.set_ip_transparent_v6(true).context("IPV6_TRANSPARENT")?;
        }
        if let Some(device) = &self.device {
            socket
                .bind_device(Some(device.as_bytes()))
                .context("SO_BINDTODEVICE")?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark).context("SO_MARK")?;
        }
        match self.bind {
            Some(SocketAddr::V4(v4)) if self.mapped => {
                let mapped: Ipv6Addr = v4.ip().to_ipv6_mapped();
                socket
                    .bind(&SocketAddr::from((mapped, v4.port())).into())
                    .context("bind")?;
            }
            Some(address) => socket.bind(&address.into()).context("bind")?,
            None => {}
        }
        Ok(socket)
    }
}

enum Failure {
    /// The test is wrong: not a fact about the network.
    Setup(anyhow::Error),
    /// What the application would see.
    Connect(io::Error),
}

fn nonblocking(socket: Socket, to: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {
            let start = Instant::now();
            // The application would wait in epoll; a peer address is there from the moment the handshake is done.
            while socket.peer_addr().is_err() {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
                if start.elapsed() > limit {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

fn fast_open(socket: &Socket, to: SocketAddr, payload: &[u8]) -> io::Result<usize> {
    // nix has no name for this flag; the value is linux/socket.h's MSG_FASTOPEN.
    let flags = MsgFlags::from_bits_retain(0x2000_0000);
    let address = SockaddrStorage::from(to);
    Ok(sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(payload)],
        &[],
        flags,
        Some(&address),
    )?)
}

fn read_some(stream: &mut TcpStream, received: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    let mut part = vec![0; wanted];
    stream.read_exact(&mut part)?;
    received.append(&mut part);
    Ok(())
}

fn read_to_end(stream: &mut TcpStream, received: &mut Vec<u8>) -> String {
    match stream.read_to_end(received) {
        Ok(_) => "eof".to_owned(),
        Err(error) => errors::name(&error),
    }
}

fn shown(address: io::Result<SocketAddr>) -> String {
    address.map_or_else(|error| errors::name(&error), |a| a.to_string())
}

fn micros(start: Instant) -> u128 {
    start.elapsed().as_micros()
}
