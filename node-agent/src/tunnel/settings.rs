//! Deadlines and bounds of tunnels.

use std::time::Duration;

/// Deadlines and bounds of tunnels; the default fits a cluster network.
#[derive(Debug, Clone)]
pub struct TunnelSettings {
    /// Longest wait for the TCP connection to the other agent.
    pub connect: Duration,
    /// Longest TLS handshake, either side.
    pub tls: Duration,
    /// Longest wait for the HTTP/2 preface (server) and for the answer to the first PING (client).
    pub http2: Duration,
    /// Longest wait for the answer to CONNECT; the other agent connects to its application meanwhile.
    pub response: Duration,
    /// A connection without streams for this long is closed.
    pub idle: Duration,
    /// Time between an answered PING and the next one.
    pub ping_interval: Duration,
    /// A PING unanswered for this long means that the connection is lost, with the streams on it.
    pub ping_timeout: Duration,
    /// A CONNECT unanswered for this long makes the connection prove by a PING that the peer is there.
    pub doubt: Duration,
    /// While a PING is unanswered for this long, new streams go to another connection.
    pub suspect: Duration,
    /// Streams on one outbound connection before another one is opened (the peer may allow fewer).
    pub max_streams_per_connection: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS of inbound connections.
    pub max_inbound_streams: u32,
    /// Bytes the peer may send on one stream before the application has taken them.
    pub stream_window: u32,
    /// Bytes of one request's or response's headers (RFC 9113, section 6.5.2).
    pub max_header_list: u32,
}

impl Default for TunnelSettings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            http2: Duration::from_secs(5),
            response: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            doubt: Duration::from_secs(1),
            suspect: Duration::from_secs(2),
            max_streams_per_connection: 64,
            max_inbound_streams: 64,
            stream_window: 1 << 20,
            max_header_list: 16 << 10,
        }
    }
}

impl TunnelSettings {
    /// Bytes the peer may send on all streams of an outbound connection before applications have taken them.
    pub(super) fn client_window(&self) -> u32 {
        self.window_of(self.max_streams_per_connection)
    }

    /// The same for an inbound connection.
    pub(super) fn server_window(&self) -> u32 {
        self.window_of(self.max_inbound_streams)
    }

    /// Room for every stream's window and one more: applications that do not read take nothing from the others.
    fn window_of(&self, streams: u32) -> u32 {
        // The largest window there is (RFC 9113, section 6.9.1).
        const LARGEST: u32 = (1 << 31) - 1;
        self.stream_window
            .saturating_mul(streams.saturating_add(1))
            .min(LARGEST)
    }
}

/// Bytes that all tunnels of an agent may hold for applications that do not take them.
pub(super) const BUFFER_BUDGET: u64 = 256 << 20;

/// Largest DATA frame either side takes: one full read of the relay, so that bulk data crosses in one frame.
pub(super) const MAX_FRAME: u32 = 256 << 10;

/// Bytes a stream may have queued for the tunnel's socket before its application is no longer read.
pub(super) const MAX_SEND_BUFFER: usize = 256 << 10;

/// Streams the peer opened and reset before they were accepted; more of them end the connection (CVE-2023-44487).
pub(super) const MAX_PENDING_RESETS: usize = 20;

/// Streams reset for the peer's protocol errors before the connection ends (CVE-2025-8671).
pub(super) const MAX_ERROR_RESETS: usize = 128;

/// Streams this side has reset and still knows. Bytes the peer sent before it learnt of the reset belong to them;
/// bytes for a stream that is forgotten are an error, and [`MAX_ERROR_RESETS`] of those in its lifetime end the
/// connection with everybody's streams. h2's 50 would be used up by a few applications that abort downloads.
pub(super) const RESET_STREAMS_KEPT: usize = 4096;

/// How long they are known: well above a round trip behind full socket buffers.
pub(super) const RESET_STREAMS_FOR: Duration = Duration::from_secs(5);
