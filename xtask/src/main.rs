//! The project's commands: `cargo xtask COMMAND`. One file per command; what they share is in `process`, `workspace`,
//! `toolchain` and `setup`.

mod artifacts;
mod bench;
mod build_ebpf;
mod demo;
mod fuzz;
mod image;
mod object_summary;
mod process;
mod report;
mod setup;
mod test;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Tramline's project commands",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the mesh against no mesh on this machine
    Bench(bench::Args),
    /// Install what the other commands need: eBPF toolchain and system packages
    Setup(setup::Args),
    /// Build the eBPF object and print its path, size, programs and maps
    BuildEbpf(build_ebpf::Args),
    /// Show the mesh at work on this machine: two nodes, real traffic, every fact measured
    Demo(demo::Args),
    /// Try mutated inputs on every parser of foreign bytes, for a minute each or as long as you say
    Fuzz(fuzz::Args),
    /// Try the steps of deploy/Dockerfile without a container engine
    Image(image::Args),
    /// Run the tests: everything, or the stages named
    Test(test::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Test(args) => test::run(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
