//! Checked loads from the contexts the kernel hands to the programs.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_SOCK_OPS_RTO_CB_FLAG, BPF_SOCK_OPS_STATE_CB_FLAG, SO_BINDTODEVICE, SO_MARK, SOL_SOCKET, bpf_sock,
    },
    helpers::{
        bpf_get_netns_cookie, bpf_setsockopt,
        generated::{bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval},
    },
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};
use tramline_common::{Address, PodId};

/// `AF_INET`.
pub(crate) const AF_INET: u32 = 2;
/// `SOCK_STREAM`.
const SOCK_STREAM: u32 = 1;

/// `LOOPBACK_IFINDEX`.
const LOOPBACK: u32 = 1;

/// The pod whose namespace this instance of `steer` is attached to. `sk_lookup` has no netns-cookie helper,
/// so the loader writes the cookie here before it loads the program. In the node's own programs it is the namespace of
/// the node.
#[unsafe(no_mangle)]
static POD: PodId = 0;

/// The constant of this instance.
#[inline(always)]
pub(crate) fn pod() -> PodId {
    // SAFETY: a valid, aligned static; volatile because the loader replaces its value after compilation.
    unsafe { core::ptr::read_volatile(&raw const POD) }
}

/// Nanoseconds of the monotonic clock.
#[inline(always)]
pub(crate) fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// 32 random bits, of no cryptographic worth.
#[inline(always)]
pub(crate) fn random() -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_get_prandom_u32() }
}

/// Where a connect goes.
#[derive(Clone, Copy)]
pub(crate) struct Destination {
    pub(crate) address: Address,
    pub(crate) port: u16,
}

#[inline(always)]
pub(crate) fn destination_v4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the kernel gives a valid context; connect4 may read user_ip4 and user_port.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    Destination {
        address: Address::from_be32(ip),
        port: u16::from_be(port as u16),
    }
}

#[inline(always)]
pub(crate) fn destination_v6(ctx: &SockAddrContext) -> Destination {
    let a = ctx.sock_addr;
    // SAFETY: the kernel gives a valid context; connect6 may read user_ip6 by words, and user_port. Volatile,
    // because the verifier refuses the wider loads the compiler would make of four neighbours.
    let (ip, port) = unsafe {
        let word = |i: usize| core::ptr::read_volatile((&raw const (*a).user_ip6).cast::<u32>().add(i));
        ([word(0), word(1), word(2), word(3)], (*a).user_port)
    };
    Destination {
        address: Address::from_be32x4(ip),
        port: u16::from_be(port as u16),
    }
}

/// Writes another IPv4 destination (or, in `getpeername`, another name); false for one of the other family.
#[inline(always)]
pub(crate) fn rewrite_v4(ctx: &SockAddrContext, to: &Destination) -> bool {
    if !to.address.is_v4() {
        return false;
    }
    let a = ctx.sock_addr;
    let o = &to.address.octets;
    // SAFETY: the kernel gives a valid context; both fields are writable in IPv4's hooks, as whole words (volatile, so that
    // they stay whole).
    unsafe {
        core::ptr::write_volatile(
            &raw mut (*a).user_ip4,
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        );
        core::ptr::write_volatile(&raw mut (*a).user_port, u32::from(to.port.to_be()));
    }
    true
}

/// The same for IPv6's hooks, where an IPv4 address is written as a mapped one.
#[inline(always)]
pub(crate) fn rewrite_v6(ctx: &SockAddrContext, to: &Destination) -> bool {
    let a = ctx.sock_addr;
    let o = &to.address.octets;
    // SAFETY: the kernel gives a valid context; the words and the port are writable in IPv6's hooks, one by one (volatile,
    // so that neighbours are not joined).
    unsafe {
        let word = |i: usize, at: usize| {
            let value = u32::from_ne_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
            core::ptr::write_volatile((&raw mut (*a).user_ip6).cast::<u32>().add(i), value);
        };
        word(0, 0);
        word(1, 4);
        word(2, 8);
        word(3, 12);
        core::ptr::write_volatile(&raw mut (*a).user_port, u32::from(to.port.to_be()));
    }
    true
}

/// Whether the socket is an MPTCP one.
#[inline(always)]
pub(crate) fn is_mptcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel gives a valid context; the field is readable in all of its hooks.
    unsafe { (*ctx.sock_addr).protocol == tramline_common::IPPROTO_MPTCP }
}

/// The socket's own address and port.
#[inline(always)]
pub(crate) fn own_end(ctx: &SockAddrContext) -> Destination {
    let sk = connecting_socket(ctx);
    // SAFETY: `sk` is a valid socket in these hooks, its family, source addresses and port are readable word by word
    // (volatile, so that the loads are not joined). All are read whatever the family: of two branches the compiler makes
    // one load at a computed place, which the verifier refuses.
    unsafe {
        let v4 = core::ptr::read_volatile(&raw const (*sk).src_ip4);
        let word = |i: usize| core::ptr::read_volatile((&raw const (*sk).src_ip6).cast::<u32>().add(i));
        let v6 = [word(0), word(1), word(2), word(3)];
        let address = if (*sk).family == AF_INET {
            Address::from_be32(v4)
        } else {
            Address::from_be32x4(v6)
        };
        Destination {
            address,
            port: (*sk).src_port as u16,
        }
    }
}

/// Whether the connect is of a TCP or MPTCP stream: the hook fires for UDP too.
#[inline(always)]
pub(crate) fn is_tcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: the kernel gives a valid context; both fields are readable in connect4 and connect6.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    kind == SOCK_STREAM
        && (protocol == tramline_common::IPPROTO_TCP || protocol == tramline_common::IPPROTO_MPTCP)
}

/// The connecting socket.
#[inline(always)]
pub(crate) fn connecting_socket(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the kernel gives a valid context; `sk` is never null in a connect hook.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// Cookie of the connecting socket's network namespace.
#[inline(always)]
pub(crate) fn netns_of_connect(ctx: &SockAddrContext) -> PodId {
    // SAFETY: the helper takes the context it is called with.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// The socket's mark.
#[inline(always)]
pub(crate) fn mark(ctx: &SockAddrContext) -> u32 {
    // SAFETY: `sk` is a valid socket in a connect hook, its mark is readable.
    unsafe { (*connecting_socket(ctx)).mark }
}

/// The device a socket is bound to, 0 for none.
#[inline(always)]
pub(crate) fn bound_device(ctx: &SockAddrContext) -> u32 {
    // SAFETY: `sk` is a valid socket in a connect hook, its device is readable.
    unsafe { (*connecting_socket(ctx)).bound_dev_if }
}

/// Whether the application has bound the socket to an address.
#[inline(always)]
pub(crate) fn is_bound(ctx: &SockAddrContext) -> bool {
    let sk = connecting_socket(ctx);
    // SAFETY: `sk` is a valid socket in a connect hook, its family and source addresses are readable word by word
    // (volatile, so that the loads are not joined).
    unsafe {
        // An IPv4 socket that was dialled before keeps a mapped address in the other field.
        if (*sk).family == AF_INET {
            return core::ptr::read_volatile(&raw const (*sk).src_ip4) != 0;
        }
        let word = |i: usize| core::ptr::read_volatile((&raw const (*sk).src_ip6).cast::<u32>().add(i));
        (word(0) | word(1) | word(2) | word(3)) != 0
    }
}

/// Lets the refused connect fail with `EACCES` (connect(2): a local firewall rule), where the kernel can (≥ 5.18).
#[inline(always)]
pub(crate) fn answer_not_permitted() {
    const EACCES: i32 = 13;
    // SAFETY: the helper takes a number and touches no memory of ours.
    unsafe { bpf_set_retval(-EACCES) };
}

/// Sets the socket's mark.
#[inline(always)]
pub(crate) fn set_mark(ctx: &SockAddrContext, mark: u32) -> bool {
    mark_socket(ctx.as_ptr(), mark)
}

/// Marks the event's socket: what is known of its route is forgotten with that.
#[inline(always)]
pub(crate) fn mark_event_socket(ctx: &SockOpsContext, mark: u32) -> bool {
    mark_socket(ctx.as_ptr(), mark)
}

#[inline(always)]
fn mark_socket(ctx: *mut core::ffi::c_void, mut mark: u32) -> bool {
    // SAFETY: a program's own context; the option's value lives on the stack for the call and its length is given.
    let code = unsafe { bpf_setsockopt(ctx, SOL_SOCKET as i32, SO_MARK as i32, (&raw mut mark).cast(), 4) };
    code == 0
}

/// Releases the socket from its device.
#[inline(always)]
pub(crate) fn unbind_device(ctx: &SockAddrContext) -> bool {
    unbind_socket(ctx.as_ptr())
}

/// The same for the event's socket.
#[inline(always)]
pub(crate) fn unbind_event_socket(ctx: &SockOpsContext) -> bool {
    unbind_socket(ctx.as_ptr())
}

#[inline(always)]
fn unbind_socket(ctx: *mut core::ffi::c_void) -> bool {
    let mut none = [0_u8; 4];
    // SAFETY: a program's own context; the option's value (an empty name) lives on the stack for the call and its length is
    // given.
    let code = unsafe {
        bpf_setsockopt(
            ctx,
            SOL_SOCKET as i32,
            SO_BINDTODEVICE as i32,
            (&raw mut none).cast(),
            4,
        )
    };
    code == 0
}

/// A SYN as `sk_lookup` sees it.
pub(crate) struct Syn {
    pub(crate) remote: Address,
    pub(crate) local: Address,
    pub(crate) remote_port: u16,
    pub(crate) local_port: u16,
    pub(crate) family: u32,
    /// Arrived by `lo`, which is interface 1 of every namespace.
    pub(crate) inside: bool,
}

/// The SYN, or `None` if the packet is not TCP.
#[inline(always)]
pub(crate) fn syn(ctx: &SkLookupContext) -> Option<Syn> {
    let c = ctx.lookup;
    // SAFETY: the kernel gives a valid context whose fields are all readable; words of IPv6 addresses are read
    // one by one (volatile), because the verifier refuses wider loads.
    unsafe {
        if (*c).protocol != tramline_common::IPPROTO_TCP {
            return None;
        }
        let family = (*c).family;
        let (remote, local) = if family == AF_INET {
            (
                Address::from_be32((*c).remote_ip4),
                Address::from_be32((*c).local_ip4),
            )
        } else {
            let r = |i: usize| core::ptr::read_volatile((&raw const (*c).remote_ip6).cast::<u32>().add(i));
            let l = |i: usize| core::ptr::read_volatile((&raw const (*c).local_ip6).cast::<u32>().add(i));
            (
                Address::from_be32x4([r(0), r(1), r(2), r(3)]),
                Address::from_be32x4([l(0), l(1), l(2), l(3)]),
            )
        };
        Some(Syn {
            remote,
            local,
            remote_port: u16::from_be((*c).remote_port),
            local_port: (*c).local_port as u16,
            family,
            inside: (*c).ingress_ifindex == LOOPBACK,
        })
    }
}

/// The socket of a sockops event, null where the kernel gives none.
#[inline(always)]
pub(crate) fn event_socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the kernel gives a valid context; `sk` is readable and may be null.
    unsafe { (*ctx.ops).__bindgen_anon_2.sk }
}

/// The device the event's socket is bound to, 0 for none.
#[inline(always)]
pub(crate) fn event_device(ctx: &SockOpsContext) -> u32 {
    // SAFETY: null or a socket of the kernel, whose device is readable.
    unsafe { event_socket(ctx).as_ref() }.map_or(0, |socket| socket.bound_dev_if)
}

/// The mark of the event's socket.
#[inline(always)]
pub(crate) fn event_mark(ctx: &SockOpsContext) -> u32 {
    // SAFETY: null or a socket of the kernel, whose mark is readable.
    unsafe { event_socket(ctx).as_ref() }.map_or(0, |socket| socket.mark)
}

/// Cookie of the event's socket.
#[inline(always)]
pub(crate) fn socket_cookie(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper takes the context it is called with.
    unsafe { bpf_get_socket_cookie(ctx.as_ptr()) }
}

/// Cookie of the event socket's network namespace.
#[inline(always)]
pub(crate) fn netns_of_event(ctx: &SockOpsContext) -> PodId {
    // SAFETY: the helper takes the context it is called with.
    unsafe { bpf_get_netns_cookie(ctx.as_ptr()) }
}

/// Addresses and ports of an event: (local, local port, remote, remote port).
#[inline(always)]
pub(crate) fn event_flow(ctx: &SockOpsContext) -> (Address, u16, Address, u16) {
    let c = ctx.ops;
    // SAFETY: the kernel gives a valid context whose fields are all readable, IPv6 ones word by word.
    unsafe {
        let (local, remote) = if (*c).family == AF_INET {
            (
                Address::from_be32((*c).local_ip4),
                Address::from_be32((*c).remote_ip4),
            )
        } else {
            let r = |i: usize| core::ptr::read_volatile((&raw const (*c).remote_ip6).cast::<u32>().add(i));
            let l = |i: usize| core::ptr::read_volatile((&raw const (*c).local_ip6).cast::<u32>().add(i));
            (
                Address::from_be32x4([l(0), l(1), l(2), l(3)]),
                Address::from_be32x4([r(0), r(1), r(2), r(3)]),
            )
        };
        // `local_port` is in host order, `remote_port` in network order in the upper half (uapi bpf.h).
        (
            local,
            (*c).local_port as u16,
            remote,
            u32::from_be((*c).remote_port) as u16,
        )
    }
}

/// Has the program called at each change of the event socket's state; what others want of the socket stays.
#[inline(always)]
pub(crate) fn watch_states(ctx: &SockOpsContext) -> bool {
    watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG)
}

/// And when what was sent is not acknowledged in time.
#[inline(always)]
pub(crate) fn watch_states_and_silence(ctx: &SockOpsContext) -> bool {
    watch(ctx, BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG)
}

#[inline(always)]
fn watch(ctx: &SockOpsContext, what: u32) -> bool {
    let flags = ctx.cb_flags() | what;
    ctx.set_cb_flags(flags as i32).is_ok()
}

/// The event socket's state, `BPF_TCP_*`.
#[inline(always)]
pub(crate) fn state(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the kernel gives a valid context whose fields are all readable.
    unsafe { (*ctx.ops).state }
}

/// Whether a program, this or another, is called at each change of the event socket's state.
#[inline(always)]
pub(crate) fn watches_states(ctx: &SockOpsContext) -> bool {
    ctx.cb_flags() & BPF_SOCK_OPS_STATE_CB_FLAG != 0
}

/// No more.
#[inline(always)]
pub(crate) fn leave_states(ctx: &SockOpsContext) {
    // At worst it is called in vain.
    let _ = ctx.set_cb_flags((ctx.cb_flags() & !BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
}

/// Bytes that were acknowledged, and bytes that came; SYN and FIN count as one each.
#[inline(always)]
pub(crate) fn bytes(ctx: &SockOpsContext) -> (u64, u64) {
    let c = ctx.ops;
    // SAFETY: the kernel gives a valid context whose fields are all readable.
    unsafe { ((*c).bytes_acked, (*c).bytes_received) }
}

/// Smoothed round trip in microseconds, and segments sent again.
#[inline(always)]
pub(crate) fn quality(ctx: &SockOpsContext) -> (u32, u32) {
    let c = ctx.ops;
    // SAFETY: the kernel gives a valid context whose fields are all readable; `srtt_us` is eight times the value.
    unsafe { ((*c).srtt_us >> 3, (*c).total_retrans) }
}

/// Whether any segment came from the other end.
#[inline(always)]
pub(crate) fn has_heard(ctx: &SockOpsContext) -> bool {
    // SAFETY: the kernel gives a valid context whose fields are all readable.
    unsafe { (*ctx.ops).segs_in != 0 }
}
