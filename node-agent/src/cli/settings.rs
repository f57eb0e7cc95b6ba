//! Where the settings of `tramline run` come from: flag, else environment variable, else the file of `--config`, else
//! the default. `tramline settings` shows which it was.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory as _, FromArgMatches};
use serde::Serialize;

use super::exit::Failure;
use super::output::{self, OutputArgs, Table};
use super::{Cli, RunConfig};
use file::Given;

/// The commands that the file is for.
const COMMANDS: [&str; 2] = ["run", "settings"];
/// The flag that names the file; it cannot stand in it.
const CONFIG: &str = "config";
/// A flag of every command and a setting of `run`.
const ADMIN_SOCKET: &str = "admin_socket";

/// Why there is no command to run.
#[derive(Debug)]
pub(super) enum Refusal {
    /// What clap says, help and version included.
    Usage(clap::Error),
    /// The file is wrong.
    File(Failure),
}

/// A command line, understood.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) cli: Cli,
    matches: ArgMatches,
    file: BTreeMap<String, Given>,
}

/// Understands a command line, with the file that it or the environment names.
pub(super) fn parse(arguments: &[OsString]) -> Result<Parsed, Refusal> {
    let mut command = Cli::command();
    let mut file = BTreeMap::new();
    // Whatever this first look cannot read, the second one will refuse with the words for it.
    if let Ok(matches) = without_required(Cli::command()).try_get_matches_from(arguments)
        && let Some(path) = file_of(&matches)
    {
        file = file::read(&path).map_err(Refusal::File)?;
        command = with_defaults(command, &file);
    }
    let matches = command.try_get_matches_from(arguments).map_err(Refusal::Usage)?;
    let cli = Cli::from_arg_matches(&matches).map_err(Refusal::Usage)?;
    Ok(Parsed { cli, matches, file })
}

fn file_of(matches: &ArgMatches) -> Option<PathBuf> {
    let (name, of_command) = matches.subcommand()?;
    if !COMMANDS.contains(&name) {
        return None;
    }
    of_command.get_one::<PathBuf>(CONFIG).cloned()
}

/// Every setting: the flags of `run` and the admin socket, in the order of its help.
fn settings() -> Vec<Arg> {
    let command = Cli::command();
    let socket = command.get_arguments().find(|arg| arg.get_id() == ADMIN_SOCKET);
    let run = RunConfig::augment_args(Command::new("run"));
    socket
        .into_iter()
        .chain(run.get_arguments())
        .filter(|arg| arg.get_long().is_some() && arg.get_id() != CONFIG)
        .cloned()
        .collect()
}

/// The name of a setting, in the file and after `--`.
fn name(setting: &Arg) -> &str {
    setting.get_long().unwrap_or_default()
}

fn takes_several(setting: &Arg) -> bool {
    matches!(setting.get_action(), ArgAction::Append)
}

fn without_required(mut command: Command) -> Command {
    for name in COMMANDS {
        command = command.mut_subcommand(name, |sub| sub.mut_args(|arg| arg.required(false)));
    }
    command
}

/// The values of the file become what is taken where neither a flag nor the environment says anything.
fn with_defaults(mut command: Command, file: &BTreeMap<String, Given>) -> Command {
    let with = |arg: Arg| match arg.get_long().and_then(|long| file.get(long)) {
        Some(given) => arg.required(false).default_values(given.values()),
        None => arg,
    };
    command = command.mut_arg(ADMIN_SOCKET, with);
    for name in COMMANDS {
        command = command.mut_subcommand(name, |sub| sub.mut_args(with));
    }
    command
}

/// `tramline settings`: the flags of `run`, none of them required.
#[derive(Debug)]
pub(super) struct SettingsArgs {
    output: OutputArgs,
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        OutputArgs::from_arg_matches(matches).map(|output| Self { output })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.output.update_from_arg_matches(matches)
    }
}

impl Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let command = RunConfig::augment_args(command);
        let command = command.mut_args(|arg| {
            let hide = arg.get_id() != CONFIG;
            arg.required(false).hide(hide)
        });
        OutputArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// One setting as it would be in force.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct SettingRow {
    /// Its name: `--NAME`, and the key in the file.
    pub(super) name: String,
    /// Its value; `null` where there is none.
    pub(super) value: Option<String>,
    /// `flag`, `environment`, `file`, `default` or `unset`.
    pub(super) source: &'static str,
    /// Its environment variable.
    pub(super) environment: Option<String>,
}

/// Shows what would be in force.
pub(super) fn run(parsed: &Parsed, args: &SettingsArgs) -> Result<(), Failure> {
    let rows = rows(parsed);
    output::show_list(args.output.output, &rows, "settings", |view| {
        let mut header = vec!["SETTING", "VALUE", "FROM"];
        if view.wide {
            header.push("ENVIRONMENT");
        }
        let mut table = Table::new(&header);
        for row in &rows {
            let value = row.value.clone().unwrap_or_else(|| "-".to_owned());
            let mut cells = vec![row.name.clone(), value, row.source.to_owned()];
            if view.wide {
                cells.push(row.environment.clone().unwrap_or_default());
            }
            table.row(cells);
        }
        table
    })
}

fn rows(parsed: &Parsed) -> Vec<SettingRow> {
    let Some((_, matches)) = parsed.matches.subcommand() else {
        return Vec::new();
    };
    settings()
        .iter()
        .map(|setting| row(setting, matches, &parsed.file))
        .collect()
}

fn row(setting: &Arg, matches: &ArgMatches, file: &BTreeMap<String, Given>) -> SettingRow {
    let id = setting.get_id().as_str();
    let values: Vec<_> = matches
        .get_raw(id)
        .into_iter()
        .flatten()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    SettingRow {
        name: name(setting).to_owned(),
        source: match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            Some(_) if file.contains_key(name(setting)) => "file",
            Some(_) => "default",
            None => "unset",
        },
        value: (!values.is_empty()).then(|| values.join(",")),
        environment: setting.get_env().map(|env| env.to_string_lossy().into_owned()),
    }
}
