//! `cargo xtask image --try`: the Dockerfile's steps in a chroot, for machines without a container engine.
//!
//! Knows the few instructions that `deploy/Dockerfile` uses. A chroot shares the machine's network and kernel; it shows
//! that the steps work on a bare Debian and that the final root filesystem is enough for the agent, not how an engine
//! would run them.

mod dockerfile;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::image::dockerfile::{Instruction, Stage};
use crate::process;
use crate::report;
use crate::workspace::Workspace;

/// The machine's own certificate bundle in a chroot, where it has set one by SSL_CERT_FILE.
const CERTIFICATES: &str = "etc/tramline-trial-certificates.crt";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Try the steps of deploy/Dockerfile in a chroot below the target directory; needs root and debootstrap
    #[arg(long = "try", required = true)]
    try_steps: bool,
    /// Keep the chroots, to look at them
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    debug_assert!(args.try_steps, "clap requires it");
    if !process::is_root() {
        bail!("a chroot needs root");
    }
    if !process::exists("debootstrap") {
        bail!("`debootstrap` is missing: apt-get install debootstrap");
    }
    let workspace = Workspace::read()?;
    let text = fs::read_to_string(workspace.root.join("deploy/Dockerfile"))
        .context("cannot read deploy/Dockerfile")?;
    let stages = dockerfile::parse(&text)?;
    let directory = workspace.target.join("image");
    remove(&directory)?;
    fs::create_dir_all(&directory)?;
    let outcome = build(&workspace, &directory, &stages);
    if args.keep {
        report::note(format!("kept {}", directory.display()));
    } else {
        remove(&directory)?;
    }
    outcome
}

fn build(workspace: &Workspace, directory: &Path, stages: &[Stage]) -> Result<()> {
    for stage in stages {
        let start = Instant::now();
        let root = directory.join(&stage.name);
        make_root(&stage.base, &root)?;
        run_stage(workspace, directory, stage, &root)?;
        report::step(format!(
            "stage {} took {} s",
            stage.name,
            start.elapsed().as_secs()
        ));
    }
    let last = stages.last().context("deploy/Dockerfile has no stage")?;
    check(&directory.join(&last.name), last)
}

fn make_root(base: &str, root: &Path) -> Result<()> {
    if base == "scratch" {
        return Ok(fs::create_dir_all(root)?);
    }
    let release = base
        .strip_prefix("debian:")
        .and_then(|tag| tag.strip_suffix("-slim"));
    let release =
        release.with_context(|| format!("FROM {base}: only debian:RELEASE-slim and scratch can be tried"))?;
    report::step(format!("making a minimal Debian {release}"));
    process::run(
        Command::new("debootstrap")
            .args(["--variant=minbase", release])
            .arg(root),
    )?;
    // debootstrap knows the release alone; the base image has updates and security too, and so has this machine.
    for file in ["etc/apt/sources.list", "etc/apt/sources.list.d/debian.sources"] {
        let own = Path::new("/").join(file);
        if own.is_file() {
            fs::copy(&own, root.join(file)).with_context(|| format!("cannot copy {}", own.display()))?;
        }
    }
    if Path::new("/etc/apt/sources.list.d/debian.sources").is_file() {
        // Otherwise debootstrap's own list would stay beside it.
        let _ = fs::remove_file(root.join("etc/apt/sources.list"));
    }
    if let Some(bundle) = env::var_os("SSL_CERT_FILE") {
        fs::copy(&bundle, root.join(CERTIFICATES))
            .with_context(|| format!("cannot copy {}", bundle.display()))?;
    }
    // What an engine gives every container: names and the way out.
    for file in ["etc/resolv.conf", "etc/hosts"] {
        fs::copy(Path::new("/").join(file), root.join(file))
            .with_context(|| format!("cannot copy /{file}"))?;
    }
    Ok(())
}

fn run_stage(workspace: &Workspace, directory: &Path, stage: &Stage, root: &Path) -> Result<()> {
    let mut work = PathBuf::from("/");
    let mut environment: Vec<(String, String)> = Vec::new();
    for instruction in &stage.instructions {
        match instruction {
            Instruction::Workdir(path) => {
                work.clone_from(path);
                fs::create_dir_all(inside(root, &work))?;
            }
            Instruction::Env(pairs) => environment.extend(pairs.iter().cloned()),
            Instruction::Copy {
                from: None,
                source,
                to,
            } => copy_context(workspace, source, &inside(root, &work.join(to)))?,
            Instruction::Copy {
                from: Some(name),
                source,
                to,
            } => {
                let from = inside(&directory.join(name), source);
                process::run(
                    Command::new("cp")
                        .args(["-a", "-T"])
                        .arg(from)
                        .arg(inside(root, &work.join(to))),
                )?;
            }
            Instruction::Run(command) => in_chroot(root, &work, &environment, command)?,
            Instruction::Entrypoint(_) => {}
        }
    }
    Ok(())
}

/// The files that git knows: a superset of what `.dockerignore` leaves and a subset of what lies around.
fn copy_context(workspace: &Workspace, source: &Path, to: &Path) -> Result<()> {
    if source != Path::new(".") {
        bail!("COPY {}: only `COPY . .` can be tried", source.display());
    }
    fs::create_dir_all(to)?;
    let script = "git -C \"$1\" ls-files -z --cached --others --exclude-standard | \
                  tar -C \"$1\" --null --ignore-failed-read -cf - -T - | tar -C \"$2\" --no-same-owner -xf -";
    process::run(
        Command::new("sh")
            .args(["-ec", script, "sh"])
            .arg(&workspace.root)
            .arg(to),
    )
}

fn in_chroot(root: &Path, work: &Path, environment: &[(String, String)], command: &str) -> Result<()> {
    report::step(format!("RUN {command}"));
    // /proc and /dev for the compilers, in a mount namespace that ends with the step.
    let script = "mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && \
                  exec chroot \"$1\" /bin/sh -c 'cd \"$1\" && eval \"$2\"' sh \"$2\" \"$3\"";
    process::run(
        Command::new("unshare")
            .args(["--mount", "--", "sh", "-ec", script, "sh"])
            .arg(root)
            .arg(work)
            .arg(command)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .envs(environment.iter().cloned())
            .envs(certificates(root)),
    )
}

/// Where a network ends TLS itself, the machine trusts more than Debian's certificates, and so must the steps.
fn certificates(root: &Path) -> Vec<(&'static str, String)> {
    if !root.join(CERTIFICATES).is_file() {
        return Vec::new();
    }
    ["SSL_CERT_FILE", "CARGO_HTTP_CAINFO"]
        .map(|name| (name, format!("/{CERTIFICATES}")))
        .into()
}

/// The final root: no shell, and its program starts.
fn check(root: &Path, stage: &Stage) -> Result<()> {
    for shell in ["bin/sh", "usr/bin/sh", "bin/bash", "bin/busybox"] {
        if root.join(shell).exists() {
            bail!("the final image has a shell: /{shell}");
        }
    }
    let entrypoint = stage
        .instructions
        .iter()
        .find_map(|instruction| match instruction {
            Instruction::Entrypoint(words) => words.first(),
            _ => None,
        });
    let program = entrypoint.context("the final stage has no ENTRYPOINT")?;
    let version = process::output(
        Command::new(process::find("chroot").context("`chroot` is not here")?)
            .arg(root)
            .arg(program)
            .arg("version")
            .env_clear(),
    )
    .context("the agent does not start from the final image")?;
    let size = process::output(Command::new("du").args(["--summarize", "--bytes"]).arg(root))?;
    report::result(format!(
        "image     {} bytes",
        size.split_whitespace().next().unwrap_or_default()
    ));
    report::result("shell     none");
    report::result(format!(
        "version   {}",
        version.lines().next().unwrap_or_default()
    ));
    let files =
        process::output(
            Command::new("find")
                .arg(root)
                .args(["-type", "f", "-printf", "%9s /%P\\n"]),
        )?;
    for file in files.lines() {
        report::result(format!("          {file}"));
    }
    Ok(())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn remove(directory: &Path) -> Result<()> {
    // One file system: a mount that was left inside must not be emptied.
    process::run(
        Command::new("rm")
            .args(["-rf", "--one-file-system"])
            .arg(directory),
    )
}
