//! The command line of the one binary: `tramline run` is the agent, everything else asks it or the machine.
//!
//! Data goes to standard output, talk to standard error. Exit codes are those of [`Exit`].

mod certificates;
mod client;
mod completions;
mod config;
mod connections;
mod doctor;
mod duration;
mod exit;
mod explain;
mod log_level;
mod output;
mod policies;
mod run;
#[cfg(test)]
mod schema_tests;
mod services;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod top;
mod version;
mod workloads;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::doctor::Check;
pub(crate) use client::{ask_for_handover, is_answered};
pub use doctor::DoctorArgs;
pub use exit::Exit;
use output::{OutputArgs, View};
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
    after_help = "Exit codes: 0 done, 1 failure, 2 wrong usage, 3 the answer is no, 4 agent not reachable."
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
    /// Show the settings `run` would have with the same flags, and where each comes from
    Settings(settings::SettingsArgs),
    /// Show whether the agent is ready and what it carries; exit code 3 when it is not ready
    Status(OutputArgs),
    /// List the workloads the agent knows
    Workloads(OutputArgs),
    /// List the Services the agent routes to, wide: with every endpoint
    Services(OutputArgs),
    /// List the policies: whom they apply to, and whether they are enforced as written
    Policies(OutputArgs),
    /// List the certificates of this node's workloads
    Certificates(OutputArgs),
    /// Check or print a configuration
    Config(config::ConfigArgs),
    /// Explain what would happen to a connection, by the code that decides; exit code 3 when it would not be let in
    Explain(explain::ExplainArgs),
    /// List live connections, the oldest first
    Connections(connections::ConnectionsArgs),
    /// Watch connections and bytes per second between workloads
    Top(top::TopArgs),
    /// Try out what this machine offers for running the agent; exit code 3 when something needed is missing
    Doctor(DoctorArgs),
    /// Show or change the running agent's log level
    LogLevel(log_level::LogLevelArgs),
    /// Print a script that completes `tramline` in a shell
    Completions(completions::CompletionsArgs),
    /// Show the version
    Version(version::VersionArgs),
}

/// Parses the command line and runs the command. `run` is the agent; `kernel_checks` are the doctor's checks that need
/// eBPF, appended to those this crate's [`crate::doctor`] makes.
pub fn main(
    run: impl FnOnce(RunConfig) -> anyhow::Result<()>,
    kernel_checks: impl FnOnce(&DoctorArgs) -> Vec<Check>,
) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let parsed = match settings::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(settings::Refusal::Usage(error)) => error.exit(),
        Err(settings::Refusal::File(failure)) => return exit::report(Err(failure)),
    };
    let socket = parsed.cli.admin_socket.clone();
    let done = match &parsed.cli.command {
        Command::Run(config) => {
            let mut config = RunConfig::clone(config);
            config.admin_socket = socket;
            run(config).map_err(exit::Failure::from)
        }
        Command::Settings(args) => settings::run(&parsed, args),
        Command::Status(args) => status::run(&socket, args),
        Command::Workloads(args) => workloads::run(&socket, args),
        Command::Services(args) => services::run(&socket, args),
        Command::Policies(args) => policies::run(&socket, args),
        Command::Certificates(args) => certificates::run(&socket, args),
        Command::Config(args) => config::run(&socket, args),
        Command::Explain(args) => explain::run(&socket, args),
        Command::LogLevel(args) => log_level::run(&socket, args),
        Command::Completions(args) => completions::run(args),
        Command::Connections(args) => connections::run(&socket, args),
        Command::Top(args) => top::run(&socket, args),
        Command::Doctor(args) => doctor::run(args, kernel_checks),
        Command::Version(args) => version::run(args),
    };
    exit::report(done)
}

/// Addresses in one cell: the first and how many more, or all of them.
fn addresses(addresses: &[IpAddr], view: View) -> String {
    match addresses {
        [] => "-".to_owned(),
        [only] => only.to_string(),
        [first, more @ ..] if !view.wide => format!("{first} +{}", more.len()),
        all => {
            let all: Vec<_> = all.iter().map(ToString::to_string).collect();
            all.join(",")
        }
    }
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}
