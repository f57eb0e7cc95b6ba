//! The server of a pod: a sink, an echo and a port for short connections.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::load::{CONNECT_PORT, ECHO_PORT, SINK_PORT};
use crate::screen;

/// Twice the connections that a load has at a time: one that closes must not keep the next one waiting.
const ACCEPTORS: usize = 16;
/// Longer than any pause a client makes.
const SILENCE: Duration = Duration::from_secs(10);
/// What one read of the sink takes at most.
const SINK_BUFFER: usize = 256 * 1024;
/// The largest message of the echo.
const LARGEST_MESSAGE: usize = 1 << 20;

pub(crate) fn run() -> Result<()> {
    serve_each_on_a_thread(SINK_PORT, sink)?;
    serve_each_on_a_thread(ECHO_PORT, echo)?;
    serve_in_place(CONNECT_PORT, one_byte)?;
    screen::json(&json!({"event": "listening"}))?;
    // Whoever started us is gone, or has let go, when this ends.
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("listen on {port}"))
}

/// For long connections: starting a thread does not count.
fn serve_each_on_a_thread(port: u16, serve: fn(TcpStream) -> io::Result<()>) -> Result<()> {
    let listener = listen(port)?;
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || complain(port, prepare(stream).and_then(serve)));
        }
    });
    Ok(())
}

/// For short connections: no thread is started for one.
fn serve_in_place(port: u16, serve: fn(TcpStream) -> io::Result<()>) -> Result<()> {
    let listener = listen(port)?;
    for _ in 0..ACCEPTORS {
        let listener = listener.try_clone().context("share a listener")?;
        thread::spawn(move || {
            for stream in listener.incoming() {
                complain(port, prepare(stream).and_then(serve));
            }
        });
    }
    Ok(())
}

fn prepare(stream: io::Result<TcpStream>) -> io::Result<TcpStream> {
    let stream = stream?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    Ok(stream)
}

fn complain(port: u16, result: io::Result<()>) {
    if let Err(error) = result {
        screen::complain(&format!("port {port}: {error}"));
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; SINK_BUFFER];
    let mut seen = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&seen.to_be_bytes()),
            // A usize fits a u64 on every target.
            n => seen += n as u64,
        }
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let size = u32::from_be_bytes(size) as usize;
    if !(1..=LARGEST_MESSAGE).contains(&size) {
        return Err(io::Error::other(format!("a message of {size} bytes")));
    }
    let mut message = vec![0; size];
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn one_byte(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)?;
    // The client closes first, as most clients do.
    match stream.read(&mut byte)? {
        0 => Ok(()),
        _ => Err(io::Error::other("more than one byte came")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connected pair, the second end served by `serve` on a thread.
    fn served(serve: fn(TcpStream) -> io::Result<()>) -> (TcpStream, thread::JoinHandle<io::Result<()>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        let client = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        client.set_read_timeout(Some(SILENCE)).expect("timeout");
        let stream = listener.accept().map(|(stream, _)| stream);
        (client, thread::spawn(move || prepare(stream).and_then(serve)))
    }

    #[test]
    fn the_sink_counts_to_the_end() {
        let (mut client, server) = served(sink);
        client.write_all(&[7; 300_000]).expect("write");
        client.shutdown(std::net::Shutdown::Write).expect("end");
        let mut count = [0; 8];
        client.read_exact(&mut count).expect("the count");
        assert_eq!(u64::from_be_bytes(count), 300_000);
        server.join().expect("no panic").expect("a good end");
    }

    #[test]
    fn the_echo_returns_whole_messages_and_refuses_none_at_all() {
        let (mut client, server) = served(echo);
        client.write_all(&3_u32.to_be_bytes()).expect("size");
        client.write_all(b"abcde").expect("one and a half");
        let mut message = [0; 3];
        client.read_exact(&mut message).expect("one");
        assert_eq!(&message, b"abc");
        drop(client);
        server.join().expect("no panic").expect("a good end");

        let (mut client, server) = served(echo);
        client.write_all(&0_u32.to_be_bytes()).expect("size");
        server
            .join()
            .expect("no panic")
            .expect_err("no size to work with");
    }
}
