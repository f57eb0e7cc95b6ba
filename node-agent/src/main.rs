//! The `tramline` binary.

use std::process::ExitCode;

use tramline_node_agent::{agent, cli};

fn main() -> ExitCode {
    cli::main(agent::run, agent::kernel_checks)
}
