//! `tramline-testapp`: every application that a pod of the test net runs, and the way into a pod's cgroup.
//!
//! Servers print `{"event":"listening"}` and live until their standard input ends or they are killed. All output is
//! one JSON object a line, so that tests read facts and not prose.

mod client;
mod errors;
mod exec;
mod forge;
mod get;
mod hello;
mod hold;
mod knock;
mod out;
mod probe;
mod server;
mod storm;
mod stream;
mod transfer;
mod uring;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// The applications of the test net.
#[derive(Debug, Parser)]
#[command(name = "tramline-testapp", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Joins a cgroup and becomes another program.
    Exec(exec::Exec),
    /// An HTTP/1.1 server that says its version and whom it saw.
    Helloworld(hello::Hello),
    /// A TCP server with a choice of manners.
    Server(server::Server),
    /// HTTP requests, each on a connection of its own.
    Get(get::Get),
    /// One TCP connection, made and ended as told.
    Client(client::Client),
    /// Many short connections, each verified, the client closing first.
    Storm(storm::Storm),
    /// Many connections held open at once.
    Hold(hold::Hold),
    /// Connections to several addresses, each reported.
    Knock(knock::Knock),
    /// Connections at a steady pace until told to stop.
    Probe(probe::Probe),
    /// Connections over which bytes go back and forth without pause until told to stop.
    Stream(stream::Stream),
    /// Connections that carry a known sequence of bytes there and back.
    Transfer(transfer::Transfer),
    /// A TCP SYN with any source address, by a raw socket.
    Forge(forge::Forge),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            out::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Exec(command) => command.run(),
        Command::Client(command) => command.run(),
        Command::Forge(command) => command.run(),
        Command::Helloworld(command) => in_runtime(command.run()),
        Command::Server(command) => in_runtime(command.run()),
        Command::Get(command) => in_runtime(command.run()),
        Command::Storm(command) => in_runtime(command.run()),
        Command::Hold(command) => in_runtime(command.run()),
        Command::Knock(command) => in_runtime(command.run()),
        Command::Probe(command) => in_runtime(command.run()),
        Command::Stream(command) => in_runtime(command.run()),
        Command::Transfer(command) => in_runtime(command.run()),
    }
}

fn in_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    // Standard input is read on a thread that nothing interrupts.
    runtime.shutdown_background();
    result
}
