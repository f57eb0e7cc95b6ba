//! `cargo xtask build-ebpf`: compiles the programs and puts the object where `node-agent/build.rs` finds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::object_summary::ObjectSummary;
use crate::process;
use crate::report;
use crate::toolchain::{self, Rustc};
use crate::workspace::{self, Workspace};

const TARGET: &str = "bpfel-unknown-none";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build the object for a release agent: without the programs' diagnostics (aya-log)
    #[arg(long)]
    release: bool,
    /// Fail on a compiler warning
    #[arg(long)]
    deny_warnings: bool,
    /// Build it with the layouts of maps that tests of upgrades take for a next version's
    #[arg(long, conflicts_with = "release")]
    next_layout: bool,
}

/// Which of the objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    /// For a debug agent, with diagnostics.
    Debug,
    /// For a release agent.
    Release,
    /// As debug, with other layouts of maps: for tests of upgrades (tests/next).
    Next,
}

impl Object {
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &["log"],
            Self::Release => &[],
            Self::Next => &["log", "next-layout"],
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::read()?;
    let kind = match (args.release, args.next_layout) {
        (true, _) => Object::Release,
        (false, true) => Object::Next,
        (false, false) => Object::Debug,
    };
    let object = build(&workspace, kind, args.deny_warnings)?;
    let summary = ObjectSummary::read(&object)?;
    report::result(format!("object    {}", object.display()));
    report::result(format!("size      {} bytes", summary.size));
    list("programs", &summary.programs);
    list("maps", &summary.maps);
    Ok(())
}

/// Builds the object and returns its path. Cargo does nothing if nothing changed.
pub(crate) fn build(workspace: &Workspace, kind: Object, deny_warnings: bool) -> Result<PathBuf> {
    let (rustc, linker) = ready()?;
    report::step(format!(
        "building the eBPF object with {} ({}, LLVM {})",
        rustc.path.display(),
        rustc.release,
        rustc.llvm
    ));
    let build_directory = workspace.target.join("ebpf-build");
    let mut command = Command::new(workspace::cargo());
    command
        .current_dir(&workspace.root)
        .args([
            "build",
            "--package=tramline-ebpf",
            "--profile=ebpf",
            "-Zbuild-std=core",
        ])
        .arg(format!("--target={TARGET}"))
        .arg("--target-dir")
        .arg(&build_directory)
        .env("RUSTC", &rustc.path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        // The linker writes BTF from the debug information: types of maps, line numbers in verifier logs.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\x1f-Clink-arg=--btf")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    command.arg(format!("--features={}", kind.features().join(",")));
    if deny_warnings {
        command.args(["-Zwarnings", "--config=build.warnings='deny'"]);
    }
    process::run(&mut command)?;
    let built = build_directory.join(TARGET).join("ebpf/tramline-ebpf");
    let object = workspace.ebpf_object(kind);
    copy_if_changed(&built, &object)?;
    Ok(object)
}

/// The first compiler for which a linker is there too.
pub(crate) fn ready() -> Result<(Rustc, PathBuf)> {
    let candidates = Rustc::candidates()?;
    if candidates.is_empty() {
        bail!("no rustc with its library source beside it was found: run `cargo xtask setup`");
    }
    for rustc in &candidates {
        if let Some(linker) = toolchain::linker(rustc.llvm) {
            return Ok((rustc.clone(), linker));
        }
    }
    let versions: Vec<_> = candidates.iter().map(|rustc| rustc.llvm.to_string()).collect();
    bail!(
        "no bpf-linker for LLVM {} was found: run `cargo xtask setup`",
        versions.join(" or ")
    );
}

/// An unchanged object keeps its time, so that the agent is not compiled anew.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("the build left no object at {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(to, new).with_context(|| format!("cannot write {}", to.display()))
}

fn list(name: &str, items: &[String]) {
    report::result(format!("{name:<9} {}", items.len()));
    for item in items {
        report::result(format!("          {item}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("deep/to"));
        fs::write(&from, "one").unwrap();
        copy_if_changed(&from, &to).unwrap();
        let first = fs::metadata(&to).unwrap().modified().unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().modified().unwrap(), first);
        fs::write(&from, "two").unwrap();
        copy_if_changed(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"two");
    }
}
