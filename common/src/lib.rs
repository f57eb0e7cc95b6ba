//! What the eBPF programs and the node agent share.
#![no_std]
