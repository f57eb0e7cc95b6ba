//! The eBPF programs, one thin entry per hook. All of them are in one object; each entry says when it runs,
//! what it may answer and what happens without it.
//!
//! On the host this compiles to an empty binary, so that `cargo check --workspace` needs no eBPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    unsafe_code,
    reason = "programs read kernel contexts and maps through raw pointers; see ctx.rs and maps.rs"
)]

#[macro_use]
mod diagnose;
mod capture;
mod ctx;
mod inbound;
mod maps;
mod passage;
mod peer_name;
mod probe;
mod registry;
mod report;
mod service;
mod verdict;

use aya_ebpf::{
    macros::{cgroup_sock_addr, sk_lookup, sock_ops},
    programs::{SkLookupContext, SockAddrContext, SockOpsContext},
};

/// Runs at `connect(2)` to an IPv4 address, in the caller's context, before the route is chosen (kernel ≥ 4.17).
/// Answers 1 (go on) or 0 (`EPERM`). Without it nothing is captured and the agent reports itself not ready.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    capture::connect(&ctx, ctx::destination_v4(&ctx), ctx::rewrite_v4)
}

/// The same for IPv6 sockets, IPv4-mapped destinations included.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    capture::connect(&ctx, ctx::destination_v6(&ctx), ctx::rewrite_v6)
}

/// Runs at `getpeername(2)` of an IPv4 socket (kernel ≥ 5.8); answers 1. Without it an application that dialled a Service sees
/// the endpoint that the kernel led it to.
#[cgroup_sock_addr(getpeername4)]
fn peer_name4(ctx: SockAddrContext) -> i32 {
    peer_name::answer(&ctx, ctx::destination_v4(&ctx), ctx::rewrite_v4)
}

/// The same for IPv6 sockets, IPv4-mapped peers included.
#[cgroup_sock_addr(getpeername6)]
fn peer_name6(ctx: SockAddrContext) -> i32 {
    peer_name::answer(&ctx, ctx::destination_v6(&ctx), ctx::rewrite_v6)
}

/// Runs at `connect(2)` of the kubelet, if its cgroup is known; answers 1. Without it the kubelet's checks meet the pods'
/// plaintext rows.
#[cgroup_sock_addr(connect4)]
fn probe4(ctx: SockAddrContext) -> i32 {
    probe::connect(&ctx, ctx::destination_v4(&ctx))
}

/// The same for IPv6.
#[cgroup_sock_addr(connect6)]
fn probe6(ctx: SockAddrContext) -> i32 {
    probe::connect(&ctx, ctx::destination_v6(&ctx))
}

/// Runs for each SYN that meets no established socket in an enrolled pod's namespace (kernel ≥ 5.9).
/// Answers `SK_PASS` (with or without a listener of the agent chosen) or `SK_DROP`, which the peer sees as a
/// refused port. One instance per pod: [`ctx::POD`] is set before load.
#[sk_lookup]
fn steer(ctx: SkLookupContext) -> u32 {
    inbound::steer(&ctx)
}

/// Runs at the turning points of TCP sockets (kernel ≥ 4.13; listen ≥ 5.0): registers the agent's deliveries
/// before their SYN leaves and learns on which ports a pod listens. Its answer is ignored by the kernel.
#[sock_ops]
fn socket_event(ctx: SockOpsContext) -> u32 {
    registry::socket_event(&ctx);
    1
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can come here: it sees an endless loop.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}
