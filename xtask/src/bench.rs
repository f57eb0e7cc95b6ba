//! `cargo xtask bench`: sets up what is missing, builds in release, and hands over to the benchmark program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::artifacts::Artifacts;
use crate::process;
use crate::report;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

/// The packages of the programs that take part: the agent, the harness's application, the load generator.
const PACKAGES: [&str; 3] = ["tramline-node-agent", "tramline-harness", "tramline-bench"];
const NEEDS_ROOT: &str = "the benchmark makes network namespaces and loads eBPF programs: it needs root";

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(clap::Subcommand)]
enum Suite {
    /// Every load on every path against no mesh, in about two minutes (docs/BENCHMARKS.md)
    Smoke(Smoke),
    /// Pass-through, same node and cross node against no mesh, with intervals and bars, in about eight minutes
    Paths(Paths),
    /// Connections, changes and memory by the number of pods' entries, policies and workloads, in about five minutes
    Scale(Scale),
    /// Decisions, updates and memory of the policy core by the number of policies and workloads, in about a minute; no root
    Policy(Policy),
}

#[derive(clap::Args)]
struct Policy {
    /// Write the results to FILE: {"machine", "commit", ..., "rows": [{case, n, metric, unit, value, runs}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each figure is taken
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

#[derive(clap::Args)]
struct Paths {
    #[command(flatten)]
    setup: setup::Options,
    /// Write the results to FILE: {"machine", "commit", ..., "rows": [{path, load, metric, unit, value, ratio_to_no_mesh, ratio_interval, runs}], "bars"}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many pairs of runs of every load on every path
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only these paths: pass_through, same_node_direct, cross_node
    #[arg(long = "path", value_name = "NAME")]
    paths: Vec<String>,
    /// Only these loads, such as connect_close
    #[arg(long = "load", value_name = "NAME")]
    loads: Vec<String>,
}

#[derive(clap::Args)]
struct Scale {
    #[command(flatten)]
    setup: setup::Options,
    /// Write the results to FILE: {"machine", "commit", ..., "base", "rows": [{case, n, metric, unit, value, runs}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each figure is taken at each size
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Small sizes and one round: shows that it works, and nothing else
    #[arg(long)]
    quick: bool,
}

#[derive(clap::Args)]
struct Smoke {
    #[command(flatten)]
    setup: setup::Options,
    /// Write the results to FILE: {"machine", "commit", ..., "rows": [{path, load, metric, unit, value, ...}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How many pairs of runs of every load in every place
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Start no agent: both halves of every pair are no mesh, and their ratios show this machine's noise
    #[arg(long)]
    control: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.suite {
        Suite::Smoke(args) => {
            let control = args.control.then(|| "--control".into());
            whole_mesh(
                args.setup,
                "smoke",
                args.json.as_deref(),
                args.rounds,
                control.into_iter().collect(),
            )
        }
        Suite::Paths(args) => {
            let paths = args.paths.iter().flat_map(|name| ["--path", name]);
            let loads = args.loads.iter().flat_map(|name| ["--load", name]);
            let only = paths.chain(loads).map(OsString::from).collect();
            whole_mesh(args.setup, "paths", args.json.as_deref(), args.rounds, only)
        }
        Suite::Scale(args) => {
            let quick = args.quick.then(|| "--quick".into());
            whole_mesh(
                args.setup,
                "scale",
                args.json.as_deref(),
                args.rounds,
                quick.into_iter().collect(),
            )
        }
        Suite::Policy(args) => policy(args),
    }
}

/// Only the core is measured: no agent is built, no namespace made.
fn policy(args: &Policy) -> Result<()> {
    let workspace = Workspace::read()?;
    report::step("building the benchmark in release (some minutes the first time)");
    let binaries = Artifacts::release_binaries(&workspace, &["tramline-bench"])?;
    let arguments = arguments("policy", &commit(&workspace), args.json.as_deref(), args.rounds)?;
    start(&binaries, &arguments)
}

fn whole_mesh(
    setup: setup::Options,
    suite: &str,
    json: Option<&Path>,
    rounds: Option<u32>,
    more: Vec<OsString>,
) -> Result<()> {
    // Listing what is missing needs no root; installing it and all the rest does.
    if !setup.no_install && !process::is_root() {
        bail!("{NEEDS_ROOT}");
    }
    setup::ensure(&[Purpose::Ebpf, Purpose::Network], setup)?;
    if !process::is_root() {
        bail!("{NEEDS_ROOT}");
    }
    let workspace = Workspace::read()?;
    crate::build_ebpf::build(&workspace, crate::build_ebpf::Object::Release, false)?;
    report::step("building the agent and the benchmark in release (some minutes the first time)");
    let binaries = Artifacts::release_binaries(&workspace, &PACKAGES)?;
    let mut arguments = arguments(suite, &commit(&workspace), json, rounds)?;
    arguments.extend(more);
    start(&binaries, &arguments)
}

fn start(binaries: &BTreeMap<String, PathBuf>, arguments: &[OsString]) -> Result<()> {
    let bench = binaries
        .get("tramline-bench")
        .context("this workspace has no tramline-bench")?;
    // In place of this process: Ctrl-C must wait for the benchmark's cleaning up.
    let error = Command::new(bench).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", bench.display()))
}

/// The commit that is checked out, with a word when it is not quite what was built; a tree without git has none.
fn commit(workspace: &Workspace) -> String {
    let mut git = Command::new("git");
    git.current_dir(&workspace.root)
        .args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
    process::output(&mut git).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn arguments(suite: &str, commit: &str, json: Option<&Path>, rounds: Option<u32>) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = [suite, "--commit", commit].map(OsString::from).into();
    if let Some(file) = json {
        arguments.push("--json".into());
        arguments.push(std::path::absolute(file).context("--json")?.into());
    }
    if let Some(rounds) = rounds {
        arguments.push("--rounds".into());
        arguments.push(rounds.to_string().into());
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_passed_on() {
        let arguments = arguments("smoke", "abc", Some(Path::new("f.json")), Some(2)).unwrap();
        assert_eq!(arguments[..4], ["smoke", "--commit", "abc", "--json"]);
        let file = Path::new(&arguments[4]);
        assert!(file.is_absolute() && file.ends_with("f.json"));
        assert_eq!(arguments[5..], ["--rounds", "2"]);
    }
}
