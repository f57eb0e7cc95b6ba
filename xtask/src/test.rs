//! `cargo xtask test`: every check that decides whether a change lands, in stages, with a summary.

pub(crate) mod counts;
mod stages;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::build_ebpf::Object;
use crate::report;
use crate::setup::{self, Purpose};
use crate::test::counts::Counts;
use crate::test::stages::Runner;
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The stages to run; all of them if none is named
    #[arg(value_enum)]
    stages: Vec<Stage>,
    #[command(flatten)]
    setup: setup::Options,
}

/// In the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Stage {
    /// Format, clippy with warnings denied, dependency rules
    Lint,
    /// Unit, property and documentation tests; needs neither root nor the eBPF toolchain
    Unit,
    /// Each eBPF program through the verifier of the running kernel; needs root
    Kernel,
    /// Nodes and pods out of namespaces with real traffic; needs root
    E2e,
    /// Every eBPF program and captured connections on Linux 6.1 and 6.12, under qemu
    Vm,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Lint, Self::Unit, Self::Kernel, Self::E2e, Self::Vm];

    fn name(self) -> &'static str {
        match self {
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Kernel => "kernel",
            Self::E2e => "e2e",
            Self::Vm => "vm",
        }
    }

    fn needs_root(self) -> bool {
        matches!(self, Self::Kernel | Self::E2e)
    }

    /// What must be installed before it runs; these stages run the eBPF object too, so it is built for them.
    fn purposes(self) -> &'static [Purpose] {
        match self {
            Self::Lint | Self::Unit => &[],
            Self::Kernel => &[Purpose::Ebpf],
            Self::E2e => &[Purpose::Ebpf, Purpose::Network, Purpose::NodePorts],
            Self::Vm => &[Purpose::Ebpf, Purpose::Vm],
        }
    }
}

struct Outcome {
    stage: Stage,
    counts: Counts,
    took: Duration,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut stages = if args.stages.is_empty() {
        Stage::ALL.to_vec()
    } else {
        args.stages.clone()
    };
    stages.sort();
    stages.dedup();
    if stages.iter().any(|stage| stage.needs_root()) && !crate::process::is_root() {
        bail!(
            "these tests load eBPF programs and make network namespaces: run as root, or `cargo xtask test lint unit`"
        );
    }
    let purposes: Vec<Purpose> = stages
        .iter()
        .flat_map(|stage| stage.purposes())
        .copied()
        .collect();
    setup::ensure(&purposes, args.setup)?;
    let workspace = Workspace::read()?;
    if purposes.contains(&Purpose::Ebpf) {
        // The debug object is what the tests run, and the next version's where they upgrade; the release object must pass the
        // verifiers too.
        for object in [Object::Release, Object::Next, Object::Debug] {
            crate::build_ebpf::build(&workspace, object, true)?;
        }
    }
    let runner = Runner::new(&workspace);
    let mut outcomes = Vec::new();
    for stage in stages {
        report::step(format!("test {}", stage.name()));
        let start = Instant::now();
        let counts = runner.run(stage)?;
        outcomes.push(Outcome {
            stage,
            counts,
            took: start.elapsed(),
        });
    }
    summary(&outcomes)
}

/// One line per stage, then the line that says it all.
fn summary(outcomes: &[Outcome]) -> Result<()> {
    let mut all = Counts::default();
    report::result("");
    report::result("stage       passed  failed  skipped  seconds");
    for outcome in outcomes {
        let Counts {
            passed,
            failed,
            skipped,
        } = outcome.counts;
        let (name, seconds) = (outcome.stage.name(), outcome.took.as_secs_f64());
        report::result(format!(
            "{name:<10} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8.1}"
        ));
        all += outcome.counts;
    }
    report::result("");
    let Counts {
        passed,
        failed,
        skipped,
    } = all;
    report::result(format!("{passed} passed, {failed} failed, {skipped} skipped"));
    if failed > 0 {
        bail!("{failed} failed");
    }
    if passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}
