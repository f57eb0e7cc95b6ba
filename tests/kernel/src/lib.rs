//! The eBPF programs on the running kernel; see `tests/`.
