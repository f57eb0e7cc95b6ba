//! HTTP requests, each on a new connection, each reported.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{errors, out};

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// `http://ADDRESS:PORT/PATH`; there is no DNS in the test net.
    url: Uri,
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// For one whole request.
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// Sent as the header `x-marker`, to be looked for on the wire.
    #[arg(long, default_value = "none")]
    marker: String,
}

impl Get {
    pub(crate) async fn run(self) -> Result<()> {
        let authority = self.url.authority().context("no address in the URL")?.as_str();
        let address: SocketAddr = authority.parse().context("the URL needs ADDRESS:PORT")?;
        for _ in 0..self.count {
            let start = Instant::now();
            let limit = Duration::from_millis(self.timeout_ms);
            let mut report = match timeout(limit, self.one(address)).await {
                Ok(Ok(report)) => report,
                Ok(Err(error)) => json!({"error": describe(&error)}),
                Err(_) => json!({"error": "timeout"}),
            };
            report["us"] = json!(start.elapsed().as_micros());
            out::line(&report)?;
        }
        Ok(())
    }

    async fn one(&self, address: SocketAddr) -> Result<Value> {
        let stream = TcpStream::connect(address).await?;
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let path = self.url.path_and_query().map_or("/", |p| p.as_str());
        let request = Request::get(path)
            .header("host", "helloworld")
            .header("x-marker", &self.marker)
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        let (seen_peer, seen_local) = (header("x-peer"), header("x-local"));
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        Ok(json!({
            "status": status,
            "body": String::from_utf8_lossy(&body),
            "local": local.to_string(),
            "peer": peer.to_string(),
            "server_saw": seen_peer,
            "server_local": seen_local,
        }))
    }
}

fn describe(error: &anyhow::Error) -> String {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.map_or_else(|| format!("{error:#}"), errors::name)
}
