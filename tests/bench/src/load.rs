//! The loads, and the words between the one who orders them and the client in a pod.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The server reads to the end, then answers with the number of bytes as a big-endian `u64`.
pub(crate) const SINK_PORT: u16 = 7001;
/// The client sends the size of its messages as a big-endian `u32`; the server returns every whole message.
pub(crate) const ECHO_PORT: u16 = 7002;
/// The server returns one byte and waits for the client to close.
pub(crate) const CONNECT_PORT: u16 = 7003;

/// The loads of the smoke run, with their names in the rows.
pub(crate) const SMOKE: [(&str, Load); 6] = [
    ("stream_64k", stream(64 * 1024)),
    ("stream_16k", stream(16 * 1024)),
    ("round_trip_64b", round_trips(64)),
    ("round_trip_16k", round_trips(16 * 1024)),
    ("connections_1", connections(1_000, 1)),
    ("connections_8", connections(2_400, 8)),
];

/// The loads of the run of paths.
pub(crate) const PATHS: [(&str, Load); 6] = [
    ("round_trip_64b", round_trips(64)),
    ("round_trip_1k", round_trips(1024)),
    ("round_trip_16k", round_trips(16 * 1024)),
    ("stream", stream(64 * 1024)),
    ("streams_8", streams(64 * 1024, 8)),
    ("connect_close", connections(1_000, 1)),
];

/// Work for a client.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Load {
    /// A connection, or some, in one direction, as fast as it goes.
    Stream {
        /// Bytes of each write.
        write: usize,
        /// How long, in milliseconds.
        millis: u64,
        /// How many of them at a time.
        streams: usize,
    },
    /// A message there and back, one after the other on one connection.
    RoundTrips {
        /// Bytes of each message.
        message: usize,
        /// How long, in milliseconds.
        millis: u64,
    },
    /// Connections one after the other: connect, a byte there and back, close. A fixed number and not a time: a client
    /// that closes first keeps each port for a minute, and a faster path would run out of them.
    Connections {
        /// How many in all.
        count: usize,
        /// How many at a time.
        concurrent: usize,
        /// Whether the sockets have a mark of their own, which makes every one of them the agent's.
        marked: bool,
    },
}

const fn stream(write: usize) -> Load {
    streams(write, 1)
}

const fn streams(write: usize, streams: usize) -> Load {
    Load::Stream {
        write,
        millis: 1_500,
        streams,
    }
}

const fn round_trips(message: usize) -> Load {
    Load::RoundTrips { message, millis: 800 }
}

const fn connections(count: usize, concurrent: usize) -> Load {
    Load::Connections {
        count,
        concurrent,
        marked: false,
    }
}

/// A line to the client.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    /// Chosen by who asks; in the answer too.
    pub(crate) id: u32,
    /// The server's pod.
    pub(crate) server: Ipv4Addr,
    /// What to do.
    pub(crate) load: Load,
}

/// A line from the client.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Answer {
    /// Of the request.
    pub(crate) id: u32,
    /// What was measured, or why nothing was.
    pub(crate) result: Result<Outcome, String>,
}

/// What a client measured.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Outcome {
    /// Length of the measured part.
    pub(crate) seconds: f64,
    /// Bytes, round trips or connections in the measured part.
    pub(crate) units: u64,
    /// The same together with the warm-up: what processor time is divided by.
    pub(crate) performed: u64,
    /// Of one round trip or connection; a stream has none.
    pub(crate) latency: Option<Latency>,
}

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}
