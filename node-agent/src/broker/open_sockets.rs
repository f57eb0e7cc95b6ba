//! Sockets that were open in a namespace before the programs watched it, by `sock_diag`.

use crate::sys::netns::Netns;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{
        AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, TCP_CLOSE_WAIT, TCP_ESTABLISHED,
        TCP_LISTEN,
    },
    inet::{ExtensionFlags, InetRequest, InetResponse, InetResponseHeader, SocketId, StateFlags},
};
use rtnetlink::{
    packet_core::{
        NLA_TYPE_MASK, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
        Nla as _,
    },
    sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

/// The kernel's name of a socket, never used twice.
pub(super) type Cookie = [u8; 8];

/// Listening sockets by their port.
pub(super) type Listening = BTreeMap<u16, BTreeSet<Cookie>>;

/// What was open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OpenSockets {
    /// Listening sockets.
    pub(super) listening: Listening,
    /// Live connections to other hosts, in either direction.
    pub(super) established: Vec<OpenSocket>,
}

/// One established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// The pod's side.
    pub local: SocketAddr,
    /// The other side.
    pub remote: SocketAddr,
    /// The kernel's name of the socket, never used twice.
    pub cookie: Cookie,
    /// Towards a port on which the pod listens now.
    pub inbound: bool,
    /// The other end has said its last.
    pub ended: bool,
}

/// `INET_DIAG_NOCOOKIE`, twice: with another cookie than its own, zeros too, a socket counts as not found.
const ANY_COOKIE: [u8; 8] = [0xff; 8];

/// The kernel answers a dump at once; more replies than this are not believed.
const MAX_REPLIES: usize = 100_000;

/// Lists the TCP sockets of a namespace.
pub(super) fn of(namespace: &Netns, home: &Netns) -> io::Result<OpenSockets> {
    list(
        namespace,
        home,
        &(StateFlags::LISTEN | StateFlags::ESTABLISHED),
        &[],
    )
}

/// Lists the TCP sockets of a namespace, also of connections whose other end has said its last, but for those of connections
/// that have one of these storages (`bpf_sk_storage`, by the descriptors of the maps; kernel ≥ 5.6).
pub(super) fn live(namespace: &Netns, home: &Netns, without: &[BorrowedFd<'_>]) -> io::Result<OpenSockets> {
    let states = StateFlags::LISTEN | StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    list(namespace, home, &states, without)
}

/// Lists the listening sockets of a namespace.
pub(super) fn listening(namespace: &Netns, home: &Netns) -> io::Result<Listening> {
    Ok(list(namespace, home, &StateFlags::LISTEN, &[])?.listening)
}

fn list(
    namespace: &Netns,
    home: &Netns,
    states: &StateFlags,
    without: &[BorrowedFd<'_>],
) -> io::Result<OpenSockets> {
    let mut socket = namespace.run(home, || Socket::new(NETLINK_SOCK_DIAG))?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut open = OpenSockets::default();
    for family in [AF_INET, AF_INET6] {
        request(&socket, family, states, without)?;
        collect(&socket, &mut open)?;
    }
    for socket in &mut open.established {
        socket.inbound = open.listening.contains_key(&socket.local.port());
    }
    Ok(open)
}

/// Ends sockets of a namespace, both sides seeing an abort (`SOCK_DESTROY`, kernel ≥ 4.5); those that are gone already
/// do not count.
pub(super) fn destroy(namespace: &Netns, home: &Netns, sockets: &[OpenSocket]) -> io::Result<usize> {
    let mut netlink = namespace.run(home, || Socket::new(NETLINK_SOCK_DIAG))?;
    netlink.bind_auto()?;
    netlink.connect(&NetlinkAddr::new(0, 0))?;
    let mut ended = 0;
    for socket in sockets {
        let id = SocketId {
            source_port: socket.local.port(),
            destination_port: socket.remote.port(),
            source_address: socket.local.ip(),
            destination_address: socket.remote.ip(),
            interface_id: 0,
            cookie: socket.cookie,
        };
        let family = if socket.local.is_ipv6() { AF_INET6 } else { AF_INET };
        send(
            &netlink,
            inet_request(family, id),
            SOCK_DESTROY,
            NLM_F_REQUEST | NLM_F_ACK,
            &[],
        )?;
        match acknowledged(&netlink) {
            Ok(()) => ended += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// Ends the connection with these two ends, if there is one.
pub(super) fn destroy_between(
    namespace: &Netns,
    home: &Netns,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<usize> {
    let found = between(namespace, home, local, remote)?;
    // Where no connection has these ends, the kernel finds the socket that listens there: that one is not meant.
    let Some(connection) = found.filter(|found| found.state != TCP_LISTEN) else {
        return Ok(0);
    };
    let socket = OpenSocket {
        local,
        remote,
        cookie: connection.socket_id.cookie,
        inbound: false,
        ended: false,
    };
    destroy(namespace, home, &[socket])
}

/// Whether the socket with these two ends is still known to the kernel but has no owner any more: its process closed it. A
/// socket that was shut down for writing looks the same to its peer, but has an owner who reads.
///
/// That the kernel finds no such connection is no proof. A closed one is found, as an orphan or as what is left of it in
/// FIN_WAIT2, for a minute.
pub(super) fn is_abandoned(
    namespace: &Netns,
    home: &Netns,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<bool> {
    let found = between(namespace, home, local, remote)?;
    Ok(found.is_some_and(|found| found.state != TCP_LISTEN && found.inode == 0))
}

/// The socket that a packet between these two ends would meet.
fn between(
    namespace: &Netns,
    home: &Netns,
    local: SocketAddr,
    remote: SocketAddr,
) -> io::Result<Option<InetResponseHeader>> {
    let netlink = namespace.run(home, || Socket::new(NETLINK_SOCK_DIAG))?;
    netlink.connect(&NetlinkAddr::new(0, 0))?;
    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    let id = SocketId {
        source_port: local.port(),
        destination_port: remote.port(),
        source_address: local.ip(),
        destination_address: remote.ip(),
        interface_id: 0,
        cookie: ANY_COOKIE,
    };
    let one = InetRequest {
        states: StateFlags::all(),
        ..inet_request(family, id)
    };
    send(&netlink, one, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, &[])?;
    let mut buffer = Vec::with_capacity(4 * 1024);
    netlink.recv(&mut buffer, 0)?;
    let reply = NetlinkMessage::<SockDiagMessage>::deserialize(&buffer).map_err(invalid)?;
    match reply.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => Ok(Some(found.header)),
        NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => Ok(None),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Ok(None),
    }
}

fn acknowledged(socket: &Socket) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4 * 1024);
    socket.recv(&mut buffer, 0)?;
    let reply = NetlinkMessage::<SockDiagMessage>::deserialize(&buffer).map_err(invalid)?;
    match reply.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

fn request(socket: &Socket, family: u8, states: &StateFlags, storages: &[BorrowedFd<'_>]) -> io::Result<()> {
    let any = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    send(
        socket,
        InetRequest {
            states: states.clone(),
            ..inet_request(family, any)
        },
        SOCK_DIAG_BY_FAMILY,
        NLM_F_REQUEST | NLM_F_DUMP,
        storages,
    )
}

fn inet_request(family: u8, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN | StateFlags::ESTABLISHED,
        socket_id,
    }
}

fn send(
    socket: &Socket,
    request: InetRequest,
    message_type: u16,
    flags: u16,
    storages: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    packet.finalize();
    // The library knows one type of request; what is done with the socket is this number alone.
    packet.header.message_type = message_type;
    let asked = storages_asked(storages);
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    bytes.extend(asked);
    // The library has counted what it knows of.
    let length = u32::try_from(bytes.len()).map_err(invalid)?;
    if let Some(field) = bytes.first_chunk_mut() {
        *field = length.to_ne_bytes();
    }
    socket.send(&bytes, 0).map(drop)
}

/// The attribute that asks for these storages of each socket (uapi `linux/inet_diag.h` and `linux/sock_diag.h`), which the
/// library does not know.
fn storages_asked(storages: &[BorrowedFd<'_>]) -> Vec<u8> {
    const REQUEST_STORAGES: u16 = 2;
    const REQUEST_MAP_DESCRIPTOR: u16 = 1;
    const HEADER: u16 = 4;
    let attribute = |kind: u16, value: &[u8]| {
        let length = HEADER + u16::try_from(value.len()).unwrap_or_default();
        [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
    };
    if storages.is_empty() {
        return Vec::new();
    }
    let maps = storages
        .iter()
        .map(|map| attribute(REQUEST_MAP_DESCRIPTOR, &map.as_raw_fd().to_ne_bytes()));
    attribute(REQUEST_STORAGES, &maps.collect::<Vec<_>>().concat())
}

/// Whether the socket has one of the storages that were asked for: without any the kernel leaves the attribute out.
fn has_storage(found: &InetResponse) -> bool {
    const STORAGES: u16 = 20;
    let mut kinds = found
        .nlas
        .iter()
        .map(|attribute| attribute.kind() & NLA_TYPE_MASK);
    kinds.any(|kind| kind == STORAGES)
}

fn invalid(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

fn collect(socket: &Socket, open: &mut OpenSockets) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    for _ in 0..MAX_REPLIES {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let reply = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(invalid)?;
            match reply.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                    let id = &socket.header.socket_id;
                    match socket.header.state {
                        TCP_LISTEN if !is_own_listener(id.source_address) => {
                            open.listening
                                .entry(id.source_port)
                                .or_default()
                                .insert(id.cookie);
                        }
                        TCP_ESTABLISHED | TCP_CLOSE_WAIT
                            if !id.destination_address.to_canonical().is_loopback()
                                && !has_storage(&socket) =>
                        {
                            open.established.push(OpenSocket {
                                local: SocketAddr::new(id.source_address, id.source_port),
                                remote: SocketAddr::new(id.destination_address, id.destination_port),
                                cookie: id.cookie,
                                inbound: false,
                                ended: socket.header.state == TCP_CLOSE_WAIT,
                            })
                        }
                        _ => {}
                    }
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            // Messages are aligned to four bytes; a length of zero would never end.
            let length = (reply.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel's list of sockets does not end",
    ))
}

fn is_own_listener(address: IpAddr) -> bool {
    address == super::sockets::DUMMY_V4 || address == super::sockets::DUMMY_V6
}
