//! The core from outside: each promise in a table, and the whole against a naive second opinion.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

mod admit;
mod aliases;
mod balance;
mod change;
mod decide;
mod explain;
mod explain_connection;
mod make;
mod mesh;
mod mtls;
mod oracle;
mod overview;
mod picked;
mod route;
mod unenforced;
mod verdict;
