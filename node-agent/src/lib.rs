//! The Tramline node agent as a library; `main.rs` is the `tramline` binary.

pub mod broker;
pub mod cli;
pub mod discover;
pub mod doctor;
pub mod identify;
mod kernel;
pub mod observe;
mod sys;
pub mod tunnel;
