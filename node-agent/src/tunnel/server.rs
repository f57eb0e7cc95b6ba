//! HBONE connections from other agents.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, Connection, SendResponse};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;

use super::cut::Cut;
use super::keepalive::{Keepalive, Lapse};
use super::peer::Peer;
use super::request::{BAGGAGE, TRACEPARENT, forwarded_for, forwarded_host, text};
use super::settings::{
    MAX_ERROR_RESETS, MAX_FRAME, MAX_PENDING_RESETS, MAX_SEND_BUFFER, RESET_STREAMS_FOR, RESET_STREAMS_KEPT,
};
use super::stats::Open;
use super::{REASON_HEADER, Served, TunnelError, TunnelSettings, TunnelStats, TunnelStream};
use crate::identify::{Believed, PeerRole};
use crate::random;

/// How long a peer may stay, at most, after this side's certificate was renewed.
const LONGEST_STAY: Duration = Duration::from_secs(30);
/// Time for a client that is turned away to read why.
const PARTING: Duration = Duration::from_secs(1);
/// Bytes that such a client may have sent before.
const MAX_UNREAD: usize = 64 << 10;
/// Time for an idle connection's GOAWAY to be followed by its end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Shakes hands with another agent on an accepted connection.
///
/// # Errors
/// When TLS or HTTP/2 fail or take longer than the settings allow, or the certificate names no workload.
pub async fn serve(
    tcp: TcpStream,
    served: Served,
    settings: &TunnelSettings,
    stats: Arc<TunnelStats>,
) -> Result<HboneConnection, TunnelError> {
    // On the heap: the caller's task lives as long as the connection, the handshake's state need not.
    let began = Instant::now();
    let guard = served.trust.guard();
    let result = Box::pin(handshake(tcp, served.tls, settings)).await;
    let reason = result.as_ref().map_or_else(TunnelError::reason, |_| Reason::Ok);
    stats.server_handshakes.ended(reason, began.elapsed());
    let (mut connection, peer, address) = result?;
    let believed = Arc::new(guard.over(peer.chain, PeerRole::Client));
    Ok(HboneConnection {
        untrusted: {
            let believed = believed.clone();
            Box::pin(async move { believed.lost().await })
        },
        believed,
        superseded: Some(Box::pin(superseded(served.superseded, served.expires))),
        keepalive: Keepalive::server(connection.ping_pong(), settings),
        idle_since: None,
        farewell: None,
        connection,
        peer: peer.identity,
        not_after: peer.not_after,
        address,
        cut: Cut::default(),
        _open: Open::new(&stats, |stats| &stats.connections_open_server),
        stats,
    })
}

type Http2 = Connection<TlsStream<TcpStream>, Bytes>;

async fn handshake(
    tcp: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    settings: &TunnelSettings,
) -> Result<(Http2, Peer, SocketAddr), TunnelError> {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
    let address = tcp.peer_addr().map_err(|source| TunnelError::Tls {
        address: unknown,
        source: Arc::new(source),
    })?;
    let _ = tcp.set_nodelay(true);
    let accepting = TlsAcceptor::from(tls).accept(tcp).into_fallible();
    let accepted = timeout(settings.tls, accepting)
        .await
        .map_err(|_| TunnelError::TlsTimeout {
            address,
            after: settings.tls,
        })?;
    let stream = match accepted {
        Ok(stream) => stream,
        Err((source, tcp)) => {
            part(tcp).await;
            return Err(TunnelError::Tls {
                address,
                source: Arc::new(source),
            });
        }
    };
    let peer = Peer::read(stream.get_ref().1.peer_certificates(), address)?;
    let handshake = Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.server_window())
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(settings.max_header_list)
        .max_concurrent_streams(settings.max_inbound_streams)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_concurrent_reset_streams(RESET_STREAMS_KEPT)
        .reset_stream_duration(RESET_STREAMS_FOR)
        .max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
        .handshake(stream);
    let connection = timeout(settings.http2, handshake)
        .await
        .map_err(|_| TunnelError::Http2Timeout {
            address,
            after: settings.http2,
        })?
        .map_err(|source| TunnelError::Http2 {
            address,
            source: Arc::new(source),
        })?;
    Ok((connection, peer, address))
}

/// Lets the alert arrive that says why. A client has sent its first request before it is judged (TLS 1.3), and closing on
/// unread bytes sends a reset, which would overtake the alert.
async fn part(mut tcp: TcpStream) {
    let unread = async {
        let mut buffer = [0; 1024];
        tcp.shutdown().await?;
        for _ in 0..MAX_UNREAD / buffer.len() {
            if tcp.read(&mut buffer).await? == 0 {
                break;
            }
        }
        std::io::Result::Ok(())
    };
    // Whoever stays, or has gone, has had its time.
    let _ = timeout(PARTING, unread).await;
}

/// One authenticated connection of another agent.
pub struct HboneConnection {
    connection: Http2,
    keepalive: Keepalive,
    idle_since: Option<Instant>,
    /// Set when the connection is to end; then its last moment.
    farewell: Option<Pin<Box<Sleep>>>,
    peer: SpiffeId,
    /// The end of its certificate.
    not_after: SystemTime,
    address: SocketAddr,
    stats: Arc<TunnelStats>,
    cut: Cut,
    believed: Arc<Believed>,
    /// Resolves when the peer is not believed any more.
    untrusted: Pin<Box<dyn Future<Output = Arc<str>> + Send>>,
    /// Resolves when the peer is to come back for a newer certificate; `None` afterwards.
    superseded: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    _open: Open,
}

/// The many clients of one workload are not sent away together.
async fn superseded(superseded: CancellationToken, expires: SystemTime) {
    superseded.cancelled().await;
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    let within = (left / 4).min(LONGEST_STAY).as_millis();
    let wait = u64::try_from(within).map_or(0, |within| random::u64() % within.max(1));
    sleep(Duration::from_millis(wait)).await;
}

impl HboneConnection {
    /// Who the peer proved to be.
    pub fn peer(&self) -> &SpiffeId {
        &self.peer
    }

    /// Where the connection comes from.
    pub fn peer_address(&self) -> SocketAddr {
        self.address
    }

    /// The next request; `None` when the connection has ended.
    ///
    /// This drives the whole connection, its streams included: call it in a loop without pause, hand each request to
    /// a task of its own, and drop the connection to cut its streams. Cancelling the call loses nothing.
    pub async fn accept(&mut self) -> Option<InboundRequest> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Ends the connection; its streams name the reason.
    pub fn close(self, reason: Reason) {
        self.cut.because(reason);
    }

    /// Says GOAWAY: requests on their way are still served, and [`Self::accept`] ends with the last stream.
    pub fn graceful_shutdown(&mut self) {
        self.connection.graceful_shutdown();
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<InboundRequest>> {
        if let Poll::Ready(why) = self.untrusted.as_mut().poll(cx) {
            self.untrusted = Box::pin(std::future::pending());
            return self.cut_for(&why);
        }
        if self
            .superseded
            .as_mut()
            .is_some_and(|superseded| superseded.as_mut().poll(cx).is_ready())
        {
            self.superseded = None;
            self.connection.graceful_shutdown();
        }
        loop {
            match self.connection.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    // It may have come after a change that came after the look above.
                    if let Err(why) = self.believed.now() {
                        return self.cut_for(&why);
                    }
                    self.idle_since = None;
                    match self.admit(request, respond) {
                        Some(request) => return Poll::Ready(Some(request)),
                        None => continue,
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(peer = %self.peer, address = %self.address, %error, "tunnel ended");
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if let Some(farewell) = &mut self.farewell {
                match farewell.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) if !self.connection.has_streams() => return Poll::Ready(None),
                    // A stream was on its way when the connection looked idle. It ends like any other, and then h2
                    // closes the connection.
                    Poll::Ready(()) => self.farewell = None,
                }
            }
            self.idle_since = if self.connection.has_streams() {
                None
            } else {
                self.idle_since.or_else(|| Some(Instant::now()))
            };
            let sent = self.keepalive.pings_sent();
            match self.keepalive.poll(cx, self.idle_since) {
                // A PING that was just queued has to be written.
                Poll::Pending if sent != self.keepalive.pings_sent() => {}
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Lapse::Lost) => {
                    tracing::debug!(peer = %self.peer, address = %self.address, "tunnel does not answer PING");
                    TunnelStats::count(&self.stats.connections_lost);
                    return Poll::Ready(None);
                }
                Poll::Ready(Lapse::Idle) => {
                    self.connection.graceful_shutdown();
                    self.farewell = Some(Box::pin(sleep(FAREWELL)));
                }
            }
        }
    }

    /// Ends it all, as the peer is not believed any more.
    fn cut_for(&self, why: &str) -> Poll<Option<InboundRequest>> {
        tracing::warn!(peer = %self.peer, address = %self.address, %why, "cut a tunnel");
        self.cut.because(Reason::PeerUntrusted);
        Poll::Ready(None)
    }

    /// A request worth showing; anything but CONNECT is answered here, and so is a peer whose certificate ended.
    fn admit(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Option<InboundRequest> {
        let open = Open::new(&self.stats, |stats| &stats.streams_open);
        let inbound = InboundRequest {
            request,
            respond,
            address: self.address,
            cut: self.cut.clone(),
            open,
        };
        if SystemTime::now() >= self.not_after {
            inbound.refuse(StatusCode::UNAUTHORIZED, Reason::NoCertificate);
            self.connection.graceful_shutdown();
            return None;
        }
        if inbound.request.method() != Method::CONNECT || inbound.request.uri().authority().is_none() {
            inbound.refuse(StatusCode::BAD_REQUEST, Reason::TunnelRefused);
            return None;
        }
        Some(inbound)
    }
}

impl fmt::Debug for HboneConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HboneConnection")
            .field("peer", &self.peer)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// One CONNECT that waits for its answer; dropped without one it is reset.
pub struct InboundRequest {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    address: SocketAddr,
    cut: Cut,
    open: Open,
}

impl InboundRequest {
    /// The target as the peer wrote it; not checked.
    pub fn authority(&self) -> &str {
        self.request
            .uri()
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// The client's address as the peer tells it: for logs, not for decisions.
    pub fn forwarded_for(&self) -> Option<SocketAddr> {
        forwarded_for(self.request.headers())
    }

    /// Host name of the Service that the client dialled, as the peer tells it.
    pub fn forwarded_host(&self) -> Option<&str> {
        forwarded_host(self.request.headers())
    }

    /// W3C baggage as the peer tells it.
    pub fn baggage(&self) -> Option<&str> {
        text(self.request.headers(), &BAGGAGE)
    }

    /// W3C trace context.
    pub fn traceparent(&self) -> Option<&str> {
        text(self.request.headers(), &TRACEPARENT)
    }

    /// Answers 200: the stream now carries the application's bytes.
    ///
    /// # Errors
    /// When the peer has reset the stream or the connection is lost.
    pub fn accept(mut self) -> Result<TunnelStream, TunnelError> {
        let send = self
            .respond
            .send_response(Response::new(()), false)
            .map_err(|source| TunnelError::Http2 {
                address: self.address,
                source: Arc::new(source),
            })?;
        Ok(TunnelStream::accepted(
            send,
            self.request.into_body(),
            self.cut,
            self.open,
        ))
    }

    /// Answers with an error status and the reason's code.
    pub fn refuse(mut self, status: StatusCode, reason: Reason) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(REASON_HEADER, HeaderValue::from_static(reason.as_str()));
        // Fails only when the peer has reset the stream meanwhile.
        let _ = self.respond.send_response(response, true);
    }
}

impl fmt::Debug for InboundRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundRequest")
            .field("authority", &self.authority())
            .finish_non_exhaustive()
    }
}
