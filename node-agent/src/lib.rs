//! The Tramline node agent as a library; `main.rs` is the `tramline` binary.

pub mod broker;
mod kernel;
mod sys;
