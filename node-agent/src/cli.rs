//! The command line of the one binary: `tramline run` is the agent, everything else asks it or the machine.
//!
//! Data goes to standard output, talk to standard error. Exit codes are those of [`Exit`].

mod client;
mod connections;
mod doctor;
mod duration;
mod exit;
mod output;
mod run;
mod status;
#[cfg(test)]
mod tests;
mod version;
mod workloads;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::doctor::Check;
pub use doctor::DoctorArgs;
pub use exit::Exit;
pub use run::{MetricsAddress, RunConfig};

/// Where the agent's admin socket is unless told otherwise.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/tramline/admin.sock";
/// Where the agent keeps its state unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/tramline";
/// Where the BPF file system is unless told otherwise.
pub const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// Sidecarless service mesh: one agent per node, eBPF capture, mutual TLS between nodes.
#[derive(Debug, Parser)]
#[command(
    name = "tramline",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 unhealthy, 4 agent not reachable."
)]
struct Cli {
    /// Admin socket of the agent: where `run` answers and the others ask
    #[arg(long, global = true, value_name = "PATH", env = "TRAMLINE_ADMIN_SOCKET", default_value = DEFAULT_ADMIN_SOCKET)]
    admin_socket: PathBuf,

    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node agent in the foreground
    Run(Box<RunConfig>),
    /// Show whether the agent is ready and what it carries; exit code 3 when it is not ready
    Status(OutputArgs),
    /// List the workloads the agent knows
    Workloads(OutputArgs),
    /// List live connections, the oldest first
    Connections(connections::ConnectionsArgs),
    /// Try out what this machine offers for running the agent; exit code 3 when something needed is missing
    Doctor(DoctorArgs),
    /// Show the version
    Version(version::VersionArgs),
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Parses the command line and runs the command. `run` is the agent; `kernel_checks` are the doctor's checks that need
/// eBPF, appended to those this crate's [`crate::doctor`] makes.
pub fn main(
    run: impl FnOnce(RunConfig) -> anyhow::Result<()>,
    kernel_checks: impl FnOnce(&DoctorArgs) -> Vec<Check>,
) -> ExitCode {
    let Cli {
        admin_socket: socket,
        command,
    } = Cli::parse();
    let done = match command {
        Command::Run(mut config) => {
            config.admin_socket = socket;
            run(*config).map_err(exit::Failure::from)
        }
        Command::Status(args) => status::run(&socket, &args),
        Command::Workloads(args) => workloads::run(&socket, &args),
        Command::Connections(args) => connections::run(&socket, &args),
        Command::Doctor(args) => doctor::run(&args, kernel_checks),
        Command::Version(args) => version::run(&args),
    };
    exit::report(done)
}
