//! From a pod's address to an HTTP/2 connection with the workload that should be there.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use h2::client::{Builder, Connection, SendRequest};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tramline_core::reason::Reason;

use super::peer::Peer;
use super::pool::PoolKey;
use super::settings::{MAX_ERROR_RESETS, MAX_FRAME, MAX_SEND_BUFFER, RESET_STREAMS_FOR, RESET_STREAMS_KEPT};
use super::{TunnelError, TunnelSettings, TunnelStats};

/// A connection, ready to be driven.
pub(super) struct Connected {
    pub(super) sender: SendRequest<Bytes>,
    pub(super) connection: Connection<TlsStream<TcpStream>, Bytes>,
    pub(super) peer: Peer,
}

/// Dials, proves who answers, starts HTTP/2. Each step has its own deadline.
pub(super) async fn connect(
    key: &PoolKey,
    tls: Arc<rustls::ClientConfig>,
    dial: BoxFuture<'static, io::Result<TcpStream>>,
    settings: &TunnelSettings,
    stats: &TunnelStats,
) -> Result<Connected, TunnelError> {
    let began = Instant::now();
    let tcp = reach(key.address, dial, settings).await;
    stats.connects.ended(reason_of(&tcp), began.elapsed());
    let tcp = tcp?;
    let began = Instant::now();
    let connected = shake_hands(key, tls, tcp, settings).await;
    stats
        .client_handshakes
        .ended(reason_of(&connected), began.elapsed());
    connected
}

fn reason_of<T>(result: &Result<T, TunnelError>) -> Reason {
    result.as_ref().map_or_else(TunnelError::reason, |_| Reason::Ok)
}

async fn reach(
    address: SocketAddr,
    dial: BoxFuture<'static, io::Result<TcpStream>>,
    settings: &TunnelSettings,
) -> Result<TcpStream, TunnelError> {
    timeout(settings.connect, dial)
        .await
        .map_err(|_| TunnelError::DialTimeout {
            address,
            after: settings.connect,
        })?
        .map_err(|source| TunnelError::Dial {
            address,
            source: Arc::new(source),
        })
}

async fn shake_hands(
    key: &PoolKey,
    tls: Arc<rustls::ClientConfig>,
    tcp: TcpStream,
    settings: &TunnelSettings,
) -> Result<Connected, TunnelError> {
    let address = key.address;
    let _ = tcp.set_nodelay(true);
    // An address as the name: there is no SNI, as from ztunnel; the identity is what is checked.
    let handshake = TlsConnector::from(tls).connect(ServerName::from(address.ip()), tcp);
    let stream = timeout(settings.tls, handshake)
        .await
        .map_err(|_| TunnelError::TlsTimeout {
            address,
            after: settings.tls,
        })?
        .map_err(|source| TunnelError::Tls {
            address,
            source: Arc::new(source),
        })?;
    let peer = Peer::read(stream.get_ref().1.peer_certificates(), address)?;
    // In our trust domain or in an alias of it: that TLS has asked.
    if !peer.identity.is_account_of(&key.destination) {
        return Err(TunnelError::PeerIdentity {
            address,
            expected: key.destination.clone(),
            found: peer.identity,
        });
    }
    let handshake = Builder::new()
        .enable_push(false)
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.client_window())
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(settings.max_header_list)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_concurrent_reset_streams(RESET_STREAMS_KEPT)
        .reset_stream_duration(RESET_STREAMS_FOR)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .handshake(stream);
    let (sender, connection) = timeout(settings.http2, handshake)
        .await
        .map_err(|_| TunnelError::Http2Timeout {
            address,
            after: settings.http2,
        })?
        .map_err(|source| TunnelError::Http2 {
            address,
            source: Arc::new(source),
        })?;
    Ok(Connected {
        sender,
        connection,
        peer,
    })
}
