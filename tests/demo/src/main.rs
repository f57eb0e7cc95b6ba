//! `tramline-demo`: two nodes, two agents, six pods on this machine; each promise shown on real traffic.
//!
//! Every fact is measured while it runs; what it prints is what it saw. Exit code 0 only when all hold.

mod facts;
mod keep;
mod report;
mod screen;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use tramline_harness::interrupt;
use tramline_harness::run::{self, Which};

use report::Report;
use stage::Stage;

/// Shows what Tramline does, on real traffic between namespaces of this machine.
#[derive(Debug, Parser)]
#[command(name = "tramline-demo", version)]
struct Arguments {
    /// Write the facts to FILE: {"facts": [{name, ok, evidence}]}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave everything running at the end, and print commands to play with
    #[arg(long)]
    keep: bool,
    /// Remove what an earlier run left, and do nothing else
    #[arg(long, conflicts_with_all = ["json", "keep"])]
    clean: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.clean {
        clean()
    } else {
        demonstrate(&arguments)
    };
    interrupt::wait_if_interrupted();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn clean() -> Result<bool> {
    if !run::is_root() {
        bail!("removing network namespaces needs root");
    }
    let removed = run::clean(Which::NotRunning)?;
    for (id, kind) in &removed {
        screen::line(&format!("removed run {id} ({kind})"));
    }
    if removed.is_empty() {
        screen::line("nothing was left behind");
    }
    Ok(true)
}

fn demonstrate(arguments: &Arguments) -> Result<bool> {
    if !run::is_root() {
        bail!("the demo makes network namespaces and loads eBPF programs: it needs root");
    }
    interrupt::watch(screen::complain)?;
    run::clean(Which::Crashed)?;
    screen::title("Tramline: two nodes, two agents, six pods, all on this machine");
    let mut stage = Stage::build()?;
    screen::line("");
    let mut report = Report::default();
    for (name, show) in facts::ALL {
        report.show(name, || show(&mut stage));
    }
    report.summarize();
    if let Some(file) = &arguments.json {
        report.write(file)?;
    }
    if arguments.keep {
        keep::keep(stage)?;
    } else {
        screen::step("removing namespaces, links, cgroups and programs");
        stage.end()?;
    }
    Ok(report.all_hold())
}
