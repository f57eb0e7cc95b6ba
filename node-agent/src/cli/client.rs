//! Asks the agent over its admin socket.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::exit::{Exit, Failure};

/// An agent that does not answer within this time is taken for stuck.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer taken.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// GETs `target` and decodes the JSON answer.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, Failure> {
    let failed = |what: String| Failure::new(Exit::Failure, format!("agent at {}: {what}", socket.display()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    let body = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, ask(socket, target))
            .await
            .unwrap_or_else(|_| {
                Err(Failure::new(
                    Exit::Unreachable,
                    format!(
                        "the agent at {} did not answer within {} s",
                        socket.display(),
                        TIMEOUT.as_secs()
                    ),
                )
                .next("see the agent's log; if it hangs, restart it"))
            })
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        failed(format!("answer not understood: {error}")).next("use the agent's own version of tramline")
    })
}

async fn ask(socket: &Path, target: &str) -> Result<Bytes, Failure> {
    let failed = |what: String| Failure::new(Exit::Failure, format!("agent at {}: {what}", socket.display()));
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable(socket, &error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::GET)
        .uri(target)
        .header(header::HOST, "tramline")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    // A socket that accepts and hangs up is one that refused this user.
    let answer = sender.send_request(request).await.map_err(|error| {
        failed(error.to_string()).next("only root and the agent's own user may ask; try with sudo")
    })?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| failed(error.to_string()))?
        .to_bytes();
    if status != StatusCode::OK {
        return Err(failed(format!(
            "{status}: {}",
            String::from_utf8_lossy(&body).trim_end()
        )));
    }
    Ok(body)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let next = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "only root and the agent's own user may ask; try with sudo",
        _ => "start it with `tramline run`, or name its socket with --admin-socket",
    };
    let what = format!("no agent answers at {}: {error}", socket.display());
    Failure::new(Exit::Unreachable, what).next(next)
}
