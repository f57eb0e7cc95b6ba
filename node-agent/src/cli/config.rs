//! `tramline config validate` and `tramline config print`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;
use tramline_core::identity::TrustDomain;
use tramline_core::mesh::MeshSettings;

use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, OutputArgs};
use super::run::namespace;
use crate::discover::files::offline::{self, Validation};
use crate::discover::{ConfigError, ConfigErrors};

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a directory of manifests as the agent does, without an agent; exit code 1 when it would be refused
    Validate(ValidateArgs),
    /// Print what was understood, as manifests: the agent's configuration in force, or that of a directory
    Print(PrintArgs),
}

#[derive(Debug, Args)]
struct ValidateArgs {
    /// Directory of manifests
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    #[command(flatten)]
    node: NodeArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct PrintArgs {
    /// Directory of manifests; without one the running agent is asked
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,

    #[command(flatten)]
    node: NodeArgs,

    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: Language,
}

#[derive(Debug, Args)]
struct NodeArgs {
    /// Node whose agent would read the directory [default: every node that a pod names]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    node: String,

    /// Trust domain of the mesh
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    trust_domain: String,

    /// Namespace whose policies hold for the whole mesh
    #[arg(long, value_name = "NAME", default_value = MeshSettings::DEFAULT_ROOT_NAMESPACE, value_parser = namespace)]
    root_namespace: String,
}

/// A language for manifests.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Language {
    /// One YAML document
    Yaml,
    /// One JSON document
    Json,
}

pub(super) fn run(socket: &Path, args: &ConfigArgs) -> Result<(), Failure> {
    match &args.command {
        ConfigCommand::Validate(args) => validate(args),
        ConfigCommand::Print(args) => print(socket, args),
    }
}

impl NodeArgs {
    fn settings(&self) -> Result<MeshSettings, Failure> {
        let trust_domain = TrustDomain::new(&self.trust_domain)
            .map_err(|error| Failure::new(Exit::Usage, format!("--trust-domain: {error}")))?;
        Ok(MeshSettings::new(trust_domain, &self.node).with_root_namespace(&self.root_namespace))
    }
}

fn validate(args: &ValidateArgs) -> Result<(), Failure> {
    let validation = offline::validate(&args.dir, &args.node.settings()?);
    output::show(args.output.output, &validation, |_| text(&validation))?;
    if validation.valid {
        Ok(())
    } else {
        // The answer itself has said why.
        Err(Failure::new(Exit::Failure, ""))
    }
}

/// For people: a line for each error, as the agent logs it, and the sum.
pub(super) fn text(validation: &Validation) -> String {
    let mut text = String::new();
    let mut lines = |mark: &str, errors: &[ConfigError]| {
        for error in errors {
            let _ = writeln!(text, "{mark}{}", output::printable(&error.to_string()));
        }
    };
    lines("", &validation.errors);
    lines("warning: ", &validation.warnings);
    let objects: Vec<_> = validation
        .objects
        .iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let files = match validation.files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let sum = match (validation.errors.len(), objects.as_slice()) {
        (0, []) => "nothing in it".to_owned(),
        (0, objects) => objects.join(", "),
        (1, _) => "1 error; an agent would refuse all of it".to_owned(),
        (errors, _) => format!("{errors} errors; an agent would refuse all of it"),
    };
    let verdict = if validation.valid { "valid" } else { "not valid" };
    let _ = writeln!(text, "{verdict}: {files}, {sum}");
    text
}

fn refused(errors: &ConfigErrors) -> Failure {
    for error in errors.errors() {
        output::talk(&error.to_string());
    }
    Failure::new(Exit::Failure, "an agent would refuse this directory")
}

fn print(socket: &Path, args: &PrintArgs) -> Result<(), Failure> {
    let list: Value = match &args.dir {
        None => client::get(socket, "/objects")?,
        Some(dir) => offline::print(dir, &args.node.settings()?).map_err(|errors| refused(&errors))?,
    };
    let format = match args.output {
        Language::Yaml => output::Output::Yaml,
        Language::Json => output::Output::Json,
    };
    output::show(format, &list, |_| String::new())
}

#[cfg(test)]
mod tests;
