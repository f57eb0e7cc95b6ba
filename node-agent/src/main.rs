//! The `tramline` binary.

use std::process::ExitCode;

use tramline_node_agent::cli;

fn main() -> ExitCode {
    cli::main(
        |_| Err(anyhow::anyhow!("this build has no agent yet")),
        |_| Vec::new(),
    )
}
