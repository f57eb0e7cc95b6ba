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
use crate::observe::admin::VERSION_HEADER;
use crate::observe::{COMMIT, VERSION};

/// An agent that does not answer within this time is taken for stuck.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer taken.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// GETs `target` and decodes the JSON answer.
pub(super) fn get<T: DeserializeOwned>(socket: &Path, target: &str) -> Result<T, Failure> {
    let reply = exchange(socket, Method::GET, target)?;
    serde_json::from_slice(&reply.body).map_err(|error| {
        let failure = failed(socket, format!("answer not understood: {error}"));
        failure.next(other_version(reply.version.as_deref()))
    })
}

/// GETs or POSTs `target` and returns the text of the answer.
pub(super) fn text(socket: &Path, method: Method, target: &str) -> Result<String, Failure> {
    let reply = exchange(socket, method, target)?;
    Ok(String::from_utf8_lossy(&reply.body).trim_end().to_owned())
}

/// Whether an agent answers there.
pub(crate) fn is_answered(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// Asks the agent there to leave the kernel to this one.
///
/// # Errors
/// It does not; the message says why.
pub(crate) fn ask_for_handover(socket: &Path) -> Result<(), String> {
    text(socket, Method::POST, "/handover")
        .map(drop)
        .map_err(|failure| failure.what)
}

struct Reply {
    /// What the agent says of itself; agents before this header say nothing.
    version: Option<String>,
    body: Bytes,
}

fn exchange(socket: &Path, method: Method, target: &str) -> Result<Reply, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(socket, error.to_string()))?;
    runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, ask(socket, method, target))
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
    })
}

async fn ask(socket: &Path, method: Method, target: &str) -> Result<Reply, Failure> {
    let failed = |what: String| failed(socket, what);
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable(socket, &error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "tramline")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(error.to_string()))?;
    // A socket that accepts and hangs up is one that refused this user.
    let answer = sender.send_request(request).await.map_err(|error| {
        failed(error.to_string()).next("only root and the agent's own user may ask; try with sudo")
    })?;
    let status = answer.status();
    let header = |name: &str| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().ok()?.to_owned())
    };
    let (version, content_type) = (header(VERSION_HEADER), header(header::CONTENT_TYPE.as_str()));
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| failed(error.to_string()))?
        .to_bytes();
    let said = String::from_utf8_lossy(&body);
    match status {
        StatusCode::OK => Ok(Reply { version, body }),
        // The path itself is not there, as opposed to what it was asked for.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            let path = target.split('?').next().unwrap_or(target);
            Err(failed(format!("it does not answer {path}")).next(other_version(version.as_deref())))
        }
        // The agent's own sentence about what it was asked.
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
            if content_type
                .as_ref()
                .is_some_and(|kind| kind.starts_with("text/plain")) =>
        {
            Err(Failure::new(Exit::Failure, said.trim_end()))
        }
        _ => Err(failed(format!("{status}: {}", said.trim_end()))),
    }
}

fn failed(socket: &Path, what: String) -> Failure {
    Failure::new(Exit::Failure, format!("agent at {}: {what}", socket.display()))
}

/// What to do about an agent that speaks another language than this program.
fn other_version(agent: Option<&str>) -> String {
    let own = format!("{VERSION} ({COMMIT})");
    match agent {
        Some(agent) if agent == own => {
            format!("the agent is of this program's version, {own}: please report this")
        }
        Some(agent) => format!("the agent is {agent}, this program {own}: use the agent's own"),
        None => format!("the agent is older than this program, {own}: use the agent's own"),
    }
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Failure {
    let next = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "only root and the agent's own user may ask; try with sudo",
        _ => "start it with `tramline run`, or name its socket with --admin-socket",
    };
    let what = format!("no agent answers at {}: {error}", socket.display());
    Failure::new(Exit::Unreachable, what).next(next)
}
