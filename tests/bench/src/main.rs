//! `tramline-bench`: what the mesh costs, measured against no mesh on the same machine in the same minutes.
//!
//! The same program is the client and the server in the pods: blocking standard sockets and threads, nothing of the
//! agent's code, so that no runtime is shared with what is measured. `docs/BENCHMARKS.md` describes the method.

mod client;
mod cpu;
mod load;
mod machine;
mod pair;
mod rows;
mod screen;
mod server;
mod smoke;
mod stage;
mod statistics;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tramline_harness::interrupt;

#[derive(Debug, Parser)]
#[command(name = "tramline-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures every load on every path for about two minutes.
    Smoke(smoke::Args),
    /// The server of a pod; lives until its standard input ends.
    Server,
    /// The client of a pod: a request per line of standard input, an answer per line of standard output.
    Client,
}

fn main() -> ExitCode {
    let result = run(Arguments::parse().command);
    interrupt::wait_if_interrupted();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Smoke(args) => smoke::run(&args),
        Command::Server => server::run(),
        Command::Client => client::run(),
    }
}
