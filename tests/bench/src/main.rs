//! `tramline-bench`: what the mesh costs, measured against no mesh on the same machine in the same minutes.
//!
//! The same program is the client and the server in the pods: blocking standard sockets and threads, nothing of the
//! agent's code, so that no runtime is shared with what is measured. `docs/BENCHMARKS.md` describes the method.

mod client;
mod cpu;
mod load;
mod machine;
mod pair;
mod paths;
mod policy;
mod ports;
mod results;
mod rows;
mod scale;
mod screen;
mod server;
mod sized;
mod smoke;
mod stage;
mod statistics;
mod table;

use std::alloc::System;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tramline_harness::interrupt;

/// Counts what is allocated, for the memory of the policy run; two additions per allocation for the others.
#[global_allocator]
static GLOBAL: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

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
    /// Measures every way through the mesh against none, for about eight minutes.
    Paths(paths::Args),
    /// Measures decisions, updates and memory of the policy core for about a minute.
    Policy(policy::Args),
    /// Measures connections, changes and memory by how much there is of everything, for some minutes.
    Scale(scale::Args),
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
        Command::Paths(args) => paths::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Server => server::run(),
        Command::Client => client::run(),
    }
}
