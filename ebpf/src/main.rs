//! The eBPF programs. On the host this compiles to an empty binary, so that `cargo check --workspace` works.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(not(target_arch = "bpf"))]
fn main() {}
