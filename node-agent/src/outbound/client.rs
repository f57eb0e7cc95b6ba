//! Whether the client is still there while the far half is opened.
//!
//! Its own connect succeeded long ago, and it can close before its bytes lead anywhere. Without the mesh that would end
//! the attempt; here nobody else is looking.

use crate::{
    accept::{ClientAddr, OriginalDst},
    broker::Broker,
    observe::Outcome,
    tunnel::socket_error,
};
use futures_util::FutureExt as _;
use std::{io, time::Duration};
use tokio::{io::Interest, net::TcpStream};
use tramline_common::PodId;
use tramline_core::reason::Reason;

/// The first look, and the longest time between two.
const LOOK: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(2)];

/// Ends when the client has closed or reset its socket; reads nothing from it.
pub(super) async fn left(
    broker: &Broker,
    pod: PodId,
    socket: &TcpStream,
    original: OriginalDst,
    client: ClientAddr,
) -> Outcome {
    let detail = tokio::select! {
        error = socket_error(socket) => error.to_string(),
        () = closed(broker, pod, socket, original, client) => "the client closed its socket".to_owned(),
    };
    Outcome::new(Reason::ClientGone).with_detail(detail)
}

/// A FIN alone says that the client sends nothing more: it may well wait for the answer. That it has closed is known to
/// the kernel, which is the same one for both ends.
async fn closed(broker: &Broker, pod: PodId, socket: &TcpStream, original: OriginalDst, client: ClientAddr) {
    let [mut pause, longest] = LOOK;
    loop {
        tokio::time::sleep(pause).await;
        if !has_ended(socket) {
            continue;
        }
        match broker.is_abandoned(pod, client.0, original.0) {
            Ok(true) => return,
            Ok(false) => {}
            // Without an answer the attempts go on to their own deadline.
            Err(error) => tracing::debug!(%error, client = %client.0, "cannot look for the client's socket"),
        }
        pause = (pause * 2).min(longest);
    }
}

/// Whether the client has sent its last byte, read or not.
fn has_ended(socket: &TcpStream) -> bool {
    socket
        .ready(Interest::READABLE)
        .now_or_never()
        .and_then(io::Result::ok)
        .is_some_and(|ready| ready.is_read_closed())
}

#[cfg(test)]
mod tests {
    use super::has_ended;
    use std::time::Duration;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    #[tokio::test]
    async fn the_end_is_seen_behind_unread_bytes_and_those_alone_are_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let pause = || tokio::time::sleep(Duration::from_millis(50));
        pause().await;
        assert!(!has_ended(&socket));
        client.write_all(b"request").await.unwrap();
        pause().await;
        assert!(!has_ended(&socket));
        drop(client);
        pause().await;
        assert!(has_ended(&socket));
        let mut bytes = [0; 16];
        assert_eq!(socket.try_read(&mut bytes).unwrap(), 7, "nothing was taken");
    }
}
