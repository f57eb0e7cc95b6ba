//! The application of the tutorials: says its version, and in headers whose address it saw.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::{out, server};

#[derive(Args, Debug)]
pub(crate) struct Hello {
    /// What it says it is.
    #[arg(long, default_value = "v1")]
    version: String,
    /// The name of its pod.
    #[arg(long, default_value = "helloworld")]
    instance: String,
    #[arg(long, default_value_t = 5000)]
    port: u16,
    /// Goes on after the end of standard input.
    #[arg(long)]
    forever: bool,
}

impl Hello {
    pub(crate) async fn run(self) -> Result<()> {
        let listener = server::listen(self.port, false)?;
        out::line(&json!({"event": "listening", "port": self.port}))?;
        let text = format!("Hello version: {}, instance: {}\n", self.version, self.instance);
        let ended = server::input_ended(self.forever);
        tokio::pin!(ended);
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => accepted?,
                () = &mut ended => return Ok(()),
            };
            let local = server::plain(stream.local_addr()?);
            let peer = server::plain(peer);
            out::line(&json!({"event": "accepted", "peer": peer, "local": local}))?;
            let text = text.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(&request, &text, peer, local);
                    async move { Ok::<_, Infallible>(answer) }
                });
                // A client that goes away in the middle is its own affair; it reports what it saw.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    text: &str,
    peer: SocketAddr,
    local: SocketAddr,
) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/hello" => (StatusCode::OK, text.to_owned()),
        _ => (StatusCode::NOT_FOUND, "not here\n".to_owned()),
    };
    let built = Response::builder()
        .status(status)
        .header("x-peer", peer.to_string())
        .header("x-local", local.to_string())
        .body(Full::new(Bytes::from(body)));
    built.unwrap_or_else(|_| Response::new(Full::new(Bytes::new())))
}
