//! Sockets that were open in a namespace before the programs watched it, by `sock_diag`.

use crate::sys::netns::Netns;
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, TCP_ESTABLISHED, TCP_LISTEN},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use rtnetlink::{
    packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload},
    sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG},
};
use std::{collections::BTreeSet, io, net::IpAddr};

/// What was open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenSockets {
    /// Ports with a listening socket.
    pub listening: BTreeSet<u16>,
    /// Established connections to other hosts: not captured, in either direction.
    pub established: usize,
}

/// The kernel answers a dump at once; more replies than this are not believed.
const MAX_REPLIES: usize = 100_000;

/// Lists the TCP sockets of a namespace.
pub(super) fn of(namespace: &Netns, home: &Netns) -> io::Result<OpenSockets> {
    let mut socket = namespace.run(home, || Socket::new(NETLINK_SOCK_DIAG))?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut open = OpenSockets::default();
    for family in [AF_INET, AF_INET6] {
        request(&socket, family)?;
        collect(&socket, &mut open)?;
    }
    Ok(open)
}

fn request(socket: &Socket, family: u8) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let wanted = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::LISTEN | StateFlags::ESTABLISHED,
        socket_id: if family == AF_INET {
            SocketId::new_v4()
        } else {
            SocketId::new_v6()
        },
    };
    let mut packet = NetlinkMessage::new(header, SockDiagMessage::InetRequest(wanted).into());
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

fn collect(socket: &Socket, open: &mut OpenSockets) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(64 * 1024);
    for _ in 0..MAX_REPLIES {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let reply = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match reply.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => {
                    let id = &socket.header.socket_id;
                    match socket.header.state {
                        TCP_LISTEN if !is_own_listener(id.source_address) => {
                            open.listening.insert(id.source_port);
                        }
                        TCP_ESTABLISHED if !id.destination_address.is_loopback() => open.established += 1,
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
