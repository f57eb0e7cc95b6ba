//! The client of a pod: does what it is told, one load after the other, and says what it measured.

mod connections;
mod round_trips;
mod stream;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use socket2::{Domain, Socket, Type};

use crate::load::{Answer, CONNECT_PORT, Load, Outcome, Request};
use crate::screen;

/// For a connection to be there.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// For a peer that is silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Any mark but zero and the agent's own: a socket with one is not the kernel's to let pass (docs/ARCHITECTURE.md).
const OWN_MARK: u32 = 7;

pub(crate) fn run() -> Result<()> {
    for line in io::stdin().lines() {
        let request: Request = serde_json::from_str(&line?).context("a request")?;
        let result = perform(request.server, request.load).map_err(|error| format!("{error:#}"));
        screen::json(&Answer {
            id: request.id,
            result,
        })?;
    }
    Ok(())
}

fn perform(server: Ipv4Addr, load: Load) -> Result<Outcome> {
    // What only a first connection costs (a tunnel's handshake, a neighbour to be found) is not what is measured here.
    once(server, false).context("the first connection")?;
    match load {
        Load::Stream {
            write,
            millis,
            streams,
        } => stream::run(server, write, Duration::from_millis(millis), streams),
        Load::RoundTrips { message, millis } => {
            round_trips::run(server, message, Duration::from_millis(millis))
        }
        Load::Connections {
            count,
            concurrent,
            marked,
        } => connections::run(server, count, concurrent, marked),
    }
}

fn connect(server: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from((server, port));
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)
        .with_context(|| format!("connect to {address}"))?;
    prepare(stream)
}

/// The same from a socket with a mark of its own.
fn connect_marked(server: Ipv4Addr, port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from((server, port));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_mark(OWN_MARK)?;
    socket
        .connect_timeout(&address.into(), CONNECT_LIMIT)
        .with_context(|| format!("connect to {address}"))?;
    prepare(socket.into())
}

fn prepare(stream: TcpStream) -> Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

/// One short connection: connect, a byte there and back, close.
fn once(server: Ipv4Addr, marked: bool) -> Result<()> {
    let mut stream = if marked {
        connect_marked(server, CONNECT_PORT)?
    } else {
        connect(server, CONNECT_PORT)?
    };
    let mut byte = [b'b'];
    stream.write_all(&byte).context("send a byte")?;
    stream.read_exact(&mut byte).context("get the byte back")?;
    ensure!(byte == [b'b'], "another byte came back");
    Ok(())
}
