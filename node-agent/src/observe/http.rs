//! The small HTTP/1.1 server under the health port and the admin socket: bounded in connections and in time.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections served at once; the next ones wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 64;
/// From the moment the server waits for a request to the end of its header; ends idle connections too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest life of one connection: whoever does not read the answer is cut off.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Bytes of one request's header.
const MAX_HEADER: usize = 16 * 1024;

pub(super) type Answer = Response<Full<Bytes>>;

/// Bounds how many connections are served at once.
#[derive(Debug)]
pub(super) struct Slots(Arc<Semaphore>);

impl Slots {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONNECTIONS)))
    }

    /// Waits for a free slot; `None` never happens since the semaphore is not closed.
    pub(super) async fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.available_permits()
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> usize {
        MAX_CONNECTIONS
    }
}

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    pub(super) header: Duration,
    pub(super) connection: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            header: HEADER_TIMEOUT,
            connection: CONNECTION_TIMEOUT,
        }
    }
}

/// Serves one connection with `handler` in a task of its own.
pub(super) fn serve<I, H, F>(io: I, slot: Option<OwnedSemaphorePermit>, deadlines: Deadlines, handler: H)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Answer> + Send,
{
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let answer = handler(request);
            async { Ok::<_, Infallible>(answer.await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(deadlines.header)
            .max_buf_size(MAX_HEADER)
            .serve_connection(TokioIo::new(io), service);
        match tokio::time::timeout(deadlines.connection, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a health or admin connection ended early"),
            Err(_) => tracing::debug!("a health or admin connection took too long and was closed"),
        }
        drop(slot);
    });
}

/// A text answer.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

/// An answer of the given content type that nobody may cache or guess the type of.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, private"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        header::HeaderValue::from_static("nosniff"),
    );
    answer
}

/// The value of a query parameter: `Some("")` for a bare name. Values are taken as they are, without decoding.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}
