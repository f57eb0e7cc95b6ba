//! Sockets made inside pods' namespaces, each marked as the agent's own before anything can be sent on it.

use super::{Broker, BrokerError, Listeners, enroll::FAMILIES};
use crate::sys::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};
use tramline_common::{
    CAPTURE_MARK, PodId,
    map::{ListenerKey, Owned, listener, owned},
};

/// The IPv4 dummy address (RFC 7600 section 4.8, 192.0.0.8/32): the agent's listeners are bound to it. `sk_lookup`
/// hands them connections whatever they are bound to, and no packet can be addressed to it, so nothing in a pod
/// or beside it can reach them directly.
pub(super) const DUMMY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));
/// The IPv6 dummy prefix (RFC 9780, 100:0:0:1::/64).
pub(super) const DUMMY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 8));

/// Ports for the listeners, tried in order. A bound port conflicts with an application that binds the same port
/// on the wildcard address: so these are ones that IANA left unassigned among the well-known ports.
const PORTS: [u16; 16] = [4, 6, 8, 10, 12, 14, 16, 26, 28, 30, 32, 34, 36, 40, 60, 285];

/// Connections that may wait for the agent to accept them.
const BACKLOG: i32 = 4096;

impl Broker {
    /// A socket for delivering to an application of the pod: may bind to the client's address (transparent), is
    /// registered with `steer` when it connects. Not yet bound or connected, non-blocking.
    pub fn delivery_socket(&self, pod: PodId, like: IpAddr) -> Result<Socket, BrokerError> {
        self.socket(
            pod,
            like,
            "opening a socket towards the pod's application",
            owned::DELIVERY,
            |socket| {
                transparent(socket, like)?;
                // Replies to the client's address come back through loopback by this mark.
                socket.set_mark(CAPTURE_MARK)?;
                // Two deliveries may share a client's address and port, to different ports of the pod.
                socket.set_reuse_address(true)
            },
        )
    }

    /// A socket that leaves the pod as if the pod had opened it: a tunnel, or a connection out of the mesh.
    pub fn egress_socket(&self, pod: PodId, like: IpAddr) -> Result<Socket, BrokerError> {
        self.socket(
            pod,
            like,
            "opening a socket in the pod's namespace",
            owned::EGRESS,
            |_| Ok(()),
        )
    }

    fn socket(
        &self,
        pod: PodId,
        like: IpAddr,
        step: &'static str,
        role: u32,
        prepare: impl FnOnce(&Socket) -> io::Result<()>,
    ) -> Result<Socket, BrokerError> {
        let namespace = self.namespace(pod)?;
        let socket = namespace
            .run(&self.home, || {
                Socket::new(
                    domain(like),
                    Type::STREAM.nonblocking().cloexec(),
                    Some(Protocol::TCP),
                )
            })
            .map_err(|source| BrokerError::Step { step, source })?;
        self.maps.own(
            &socket,
            Owned {
                pod,
                role,
                reserved: 0,
            },
        )?;
        socket
            .set_tcp_nodelay(true)
            .and_then(|()| prepare(&socket))
            .map_err(|source| BrokerError::Step { step, source })?;
        Ok(socket)
    }

    /// Opens the listeners of a pod and gives them to `steer`.
    pub(super) fn listen(
        &self,
        pod: PodId,
        namespace: &Netns,
    ) -> Result<(Listeners, Vec<(ListenerKey, OwnedFd)>), BrokerError> {
        let mut listeners = Listeners::default();
        let mut kept = Vec::new();
        for (role, list) in [
            (listener::OUTBOUND, &mut listeners.outbound),
            (listener::HBONE, &mut listeners.hbone),
            (listener::PLAINTEXT, &mut listeners.plaintext),
        ] {
            for (family, dummy) in FAMILIES.into_iter().zip([DUMMY_V4, DUMMY_V6]) {
                let Some(socket) = self.listener(pod, namespace, dummy)? else {
                    continue;
                };
                let key = ListenerKey { pod, role, family };
                self.maps.set_listener(key, &socket)?;
                let copy = socket.try_clone().map_err(|source| BrokerError::Step {
                    step: "keeping a listener of the pod",
                    source,
                })?;
                kept.push((key, copy.into()));
                list.push(socket.into());
            }
        }
        Ok((listeners, kept))
    }

    /// One listener; `None` in a namespace whose kernel has no such family.
    fn listener(&self, pod: PodId, namespace: &Netns, dummy: IpAddr) -> Result<Option<Socket>, BrokerError> {
        let failed = |source| BrokerError::Step {
            step: "opening the agent's listeners in the pod",
            source,
        };
        for port in PORTS {
            let made = namespace.run(&self.home, || {
                Socket::new(
                    domain(dummy),
                    Type::STREAM.nonblocking().cloexec(),
                    Some(Protocol::TCP),
                )
            });
            let socket = match made {
                Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
                made => made.map_err(failed)?,
            };
            // Before `listen`: the programs must not take it for a port of the application.
            self.maps.own(
                &socket,
                Owned {
                    pod,
                    role: owned::LISTENER,
                    reserved: 0,
                },
            )?;
            transparent(&socket, dummy).map_err(failed)?;
            // Accepted sockets inherit it: then an application may bind a port that one of them has as its
            // (foreign) local port, if it sets SO_REUSEADDR too, as servers do.
            socket.set_reuse_address(true).map_err(failed)?;
            // Agents that were succeeded keep theirs while they carry connections, however many there are. `steer` chooses the
            // socket itself, never one of a group.
            socket.set_reuse_port(true).map_err(failed)?;
            match socket.bind(&SocketAddr::new(dummy, port).into()) {
                // A namespace with IPv6 switched off (disable_ipv6) answers EADDRNOTAVAIL or EACCES.
                Err(error) if dummy.is_ipv6() && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                bound => bound.map_err(failed)?,
            }
            match socket.listen(BACKLOG) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                listening => listening.map_err(failed)?,
            }
            return Ok(Some(socket));
        }
        Err(failed(io::Error::from(io::ErrorKind::AddrInUse)))
    }
}

fn domain(like: IpAddr) -> Domain {
    if like.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    }
}

fn transparent(socket: &Socket, like: IpAddr) -> io::Result<()> {
    if like.is_ipv4() {
        socket.set_ip_transparent_v4(true)
    } else {
        socket.set_ip_transparent_v6(true)
    }
}
