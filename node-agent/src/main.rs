//! The `tramline` binary.

fn main() {}
