//! What an accepted socket tells, and how one is turned away.

use std::{io, net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// What the application dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OriginalDst(pub(crate) SocketAddr);

/// Where the connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientAddr(pub(crate) SocketAddr);

/// Reads both ends off a socket that `steer` handed over: its local address *is* the original destination, no
/// address was rewritten.
pub(crate) fn addresses(socket: &TcpStream) -> io::Result<(OriginalDst, ClientAddr)> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Ok((
        OriginalDst(canonical(socket.local_addr()?)),
        ClientAddr(canonical(socket.peer_addr()?)),
    ))
}

/// Which endpoint the kernel chose, where a Service was dialled that it resolves: the accepted socket has the SYN's mark.
pub(crate) fn picked(socket: &TcpStream) -> Option<u32> {
    tramline_common::service::picked(socket2::SockRef::from(socket).mark().ok()?)
}

/// Ends a connection so that the peer sees an error (RST), not an end of file.
pub(crate) fn abort(socket: TcpStream) {
    // Without lingering the close below would be a FIN; if that cannot be set, a FIN it is.
    if let Err(error) = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection ends with FIN instead of RST");
    }
    drop(socket);
}
