//! Accepts what `steer` hands over, and starts the story of each connection.

use super::{LocalPod, Slots};
use crate::{accept, broker::Listeners, context::Context, inbound, outbound, tunnel::Handshake};
use std::{
    net::{IpAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};

/// After an accept that failed (no descriptors left, most likely): the loop goes on, but does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// What a listener's connections are.
#[derive(Clone, Copy)]
enum Kind {
    Outbound,
    Tunnel,
    Plaintext,
}

/// Starts a loop for each listener. Must be called inside the data plane's runtime.
pub(super) fn start(context: &Arc<Context>, pod: &Arc<LocalPod>, listeners: Listeners) {
    for (kind, list) in [
        (Kind::Outbound, listeners.outbound),
        (Kind::Tunnel, listeners.hbone),
        (Kind::Plaintext, listeners.plaintext),
    ] {
        for listener in list {
            let (context, owner) = (context.clone(), pod.clone());
            pod.spawn(async move { accept_all(context, owner, kind, listener).await });
        }
    }
}

async fn accept_all(context: Arc<Context>, pod: Arc<LocalPod>, kind: Kind, listener: StdListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, pod = %pod.uid, "cannot wait on a listener"),
    };
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => begin(&context, &pod, kind, socket, peer.ip()),
            Err(error) => {
                tracing::warn!(%error, pod = %pod.uid, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn begin(context: &Arc<Context>, pod: &Arc<LocalPod>, kind: Kind, socket: TcpStream, peer: IpAddr) {
    let Some(begun) = Begun::new(context, pod, kind, peer) else {
        return accept::abort(socket);
    };
    // A relay that waits for the peer's answer must not wait for the peer's delayed acknowledgement too.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
    let (context, owner) = (context.clone(), pod.clone());
    pod.spawn(async move {
        match begun {
            Begun::Tunnel(handshake) => inbound::tunnel(context, owner, socket, handshake).await,
            Begun::Outbound(_slots) => outbound::serve(context, owner, socket).await,
            Begun::Plaintext(_slots) => inbound::plaintext(context, owner, socket).await,
        }
    });
}

/// What a connection holds from its first moment.
enum Begun {
    Outbound(Slots),
    Plaintext(Slots),
    /// Nobody knows yet who it is: it gets a slot once it has proved an identity.
    Tunnel(Handshake),
}

impl Begun {
    fn new(context: &Context, pod: &LocalPod, kind: Kind, peer: IpAddr) -> Option<Self> {
        match kind {
            Kind::Outbound => pod.slot(context).map(Self::Outbound),
            Kind::Plaintext => pod.slot(context).map(Self::Plaintext),
            Kind::Tunnel => context.handshakes.begin(peer.to_canonical()).map(Self::Tunnel),
        }
    }
}
