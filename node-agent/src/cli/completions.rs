//! `tramline completions`.

use clap::{Args, CommandFactory as _, ValueEnum};

use super::exit::Failure;
use super::{Cli, output};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell to complete in
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    /// source <(tramline completions bash)
    Bash,
    /// tramline completions zsh > "${fpath[1]}/_tramline"
    Zsh,
    /// tramline completions fish | source
    Fish,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    output::data(&script(args.shell))
}

pub(super) fn script(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tramline", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
