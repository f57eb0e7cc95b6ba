//! The `tramline-next` binary: the node agent as a next version may be.

use std::process::ExitCode;

use tramline_next::{agent, cli};

fn main() -> ExitCode {
    cli::main(agent::run, agent::kernel_checks)
}
