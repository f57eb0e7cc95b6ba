//! `cargo xtask bench`: sets up what is missing, builds in release, and hands over to the benchmark program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
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
    Policy(Common),
}

/// What every suite is told.
#[derive(clap::Args)]
struct Common {
    /// Write the results to FILE as JSON: {"machine", "commit", ..., "rows": [...]} (docs/BENCHMARKS.md, "Results")
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How often each figure is taken; what is compared with no mesh is taken in pairs
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

/// What every suite is told that measures agents and pods.
#[derive(clap::Args)]
struct WholeMesh {
    #[command(flatten)]
    setup: setup::Options,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Paths {
    #[command(flatten)]
    mesh: WholeMesh,
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
    mesh: WholeMesh,
    /// Small sizes and one round: shows that it works, and nothing else
    #[arg(long)]
    quick: bool,
}

#[derive(clap::Args)]
struct Smoke {
    #[command(flatten)]
    mesh: WholeMesh,
    /// Start no agent: both halves of every pair are no mesh, and their ratios show this machine's noise
    #[arg(long)]
    control: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.suite {
        Suite::Smoke(args) => whole_mesh("smoke", &args.mesh, flag("--control", args.control)),
        Suite::Paths(args) => {
            let paths = args.paths.iter().flat_map(|name| ["--path", name]);
            let loads = args.loads.iter().flat_map(|name| ["--load", name]);
            let only = paths.chain(loads).map(OsString::from).collect();
            whole_mesh("paths", &args.mesh, only)
        }
        Suite::Scale(args) => whole_mesh("scale", &args.mesh, flag("--quick", args.quick)),
        Suite::Policy(common) => policy(common),
    }
}

fn flag(name: &str, is_given: bool) -> Vec<OsString> {
    is_given.then(|| name.into()).into_iter().collect()
}

/// Only the core is measured: no agent is built, no namespace made.
fn policy(common: &Common) -> Result<()> {
    let workspace = Workspace::read()?;
    report::step("building the benchmark in release (some minutes the first time)");
    let binaries = Artifacts::release_binaries(&workspace, &["tramline-bench"])?;
    start(&binaries, &arguments("policy", &commit(&workspace), common)?)
}

fn whole_mesh(suite: &str, args: &WholeMesh, more: Vec<OsString>) -> Result<()> {
    // Listing what is missing needs no root; installing it and all the rest does.
    if !args.setup.no_install && !process::is_root() {
        bail!("{NEEDS_ROOT}");
    }
    setup::ensure(&[Purpose::Ebpf, Purpose::Network], args.setup)?;
    if !process::is_root() {
        bail!("{NEEDS_ROOT}");
    }
    let workspace = Workspace::read()?;
    crate::build_ebpf::build(&workspace, crate::build_ebpf::Object::Release, false)?;
    report::step("building the agent and the benchmark in release (some minutes the first time)");
    let binaries = Artifacts::release_binaries(&workspace, &PACKAGES)?;
    let mut arguments = arguments(suite, &commit(&workspace), &args.common)?;
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

fn arguments(suite: &str, commit: &str, common: &Common) -> Result<Vec<OsString>> {
    let mut arguments: Vec<OsString> = [suite, "--commit", commit].map(OsString::from).into();
    if let Some(file) = &common.json {
        arguments.push("--json".into());
        arguments.push(std::path::absolute(file).context("--json")?.into());
    }
    if let Some(rounds) = common.rounds {
        arguments.push("--rounds".into());
        arguments.push(rounds.to_string().into());
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn suite(line: &str) -> Suite {
        Line::parse_from(line.split(' ')).args.suite
    }

    #[test]
    fn what_was_asked_for_is_passed_on() {
        let Suite::Policy(common) = suite("bench policy --json f.json --rounds 2") else {
            panic!("another suite");
        };
        let arguments = arguments("policy", "abc", &common).unwrap();
        assert_eq!(arguments[..4], ["policy", "--commit", "abc", "--json"]);
        let file = Path::new(&arguments[4]);
        assert!(file.is_absolute() && file.ends_with("f.json"));
        assert_eq!(arguments[5..], ["--rounds", "2"]);
    }

    #[test]
    fn each_suite_of_the_whole_mesh_takes_what_all_take() {
        let common = "--no-install --rounds 3 --json f.json";
        for (name, own) in [
            ("smoke", "--control"),
            ("paths", "--path same_node_direct --load connect_close"),
            ("scale", "--quick"),
        ] {
            let mesh = match suite(&format!("bench {name} {own} {common}")) {
                Suite::Smoke(smoke) if smoke.control => smoke.mesh,
                Suite::Paths(paths) if paths.paths.len() + paths.loads.len() == 2 => paths.mesh,
                Suite::Scale(scale) if scale.quick => scale.mesh,
                _ => panic!("{name} without {own}"),
            };
            assert!(mesh.setup.no_install, "{name}");
            assert_eq!(mesh.common.rounds, Some(3), "{name}");
            assert_eq!(mesh.common.json.as_deref(), Some(Path::new("f.json")), "{name}");
        }
    }
}
