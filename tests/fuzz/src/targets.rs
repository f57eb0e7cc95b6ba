//! One file per parser.

mod authority;
mod baggage;
mod forwarded;
mod identity;
mod manifests;
mod policy;
mod traceparent;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    manifests::TARGET,
    identity::TARGET,
    authority::TARGET,
    forwarded::TARGET,
    baggage::TARGET,
    traceparent::TARGET,
    policy::TARGET,
];

/// A refusal that an operator can do something with: words, of a sane length, on one line, without control characters.
fn is_reason(text: &str) -> bool {
    text.chars().any(char::is_alphabetic) && text.len() < 400 && !text.chars().any(char::is_control)
}
