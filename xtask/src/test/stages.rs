//! What each stage runs.
//!
//! Every stage builds the whole workspace in one profile: a selection of packages would unify features differently, and
//! the dependencies would be compiled again for it.

use std::process::Command;

use anyhow::{Result, bail};

use crate::artifacts::Artifacts;
use crate::process;
use crate::report;
use crate::test::Stage;
use crate::test::counts::Counts;
use crate::workspace::Workspace;

/// Where the kernel tests pin, as an agent does by default. systemd mounts it; a machine without systemd has none.
fn mount_bpffs() -> Result<()> {
    const BPFFS: &str = "/sys/fs/bpf";
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let is_there = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next(), fields.next()) == (Some(BPFFS), Some("bpf"))
    });
    if is_there || !process::is_root() {
        return Ok(());
    }
    report::note("no bpf filesystem is mounted: mounting one at /sys/fs/bpf, as systemd does");
    process::run(Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
}

/// The directories of the packages whose tests need root, by stage.
const ROOT_TESTS: [(Stage, &str); 2] = [(Stage::Kernel, "tests/kernel"), (Stage::E2e, "tests/e2e")];

/// Without root these tests say so and pass; as a stage they must not.
const REQUIRE_ROOT: &str = "TRAMLINE_REQUIRE_ROOT";

pub(crate) struct Runner<'a> {
    workspace: &'a Workspace,
    nextest: bool,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(workspace: &'a Workspace) -> Self {
        let nextest = process::output(workspace.cargo().args(["nextest", "--version"])).is_ok();
        if !nextest {
            report::note("cargo-nextest is not here: using cargo test");
        }
        Self { workspace, nextest }
    }

    pub(crate) fn run(&self, stage: Stage) -> Result<Counts> {
        match stage {
            Stage::Lint => self.lint(),
            Stage::Unit => self.unit(),
            Stage::Kernel | Stage::E2e => self.root_tests(stage),
            Stage::Vm => crate::vm::run(self.workspace),
        }
    }

    fn lint(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        counts += check(self.workspace.cargo().args(["fmt", "--all", "--check"]))?;
        let clippy = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "--deny=warnings",
        ];
        counts += check(self.workspace.cargo().args(clippy))?;
        if process::exists("cargo-deny") {
            let deny = [
                "deny",
                "--config=.deny.toml",
                "check",
                "bans",
                "licenses",
                "sources",
            ];
            counts += check(self.workspace.cargo().args(deny))?;
        } else {
            report::step(
                "SKIPPED: dependency rules, because cargo-deny is not here (`cargo install cargo-deny`)",
            );
            counts.skipped += 1;
        }
        Ok(counts)
    }

    fn unit(&self) -> Result<Counts> {
        let others = self.packages(|_| true);
        let mut counts = if self.nextest {
            let none_of: Vec<_> = others.iter().map(|name| format!("not package({name})")).collect();
            let mut command = self.nextest();
            if !none_of.is_empty() {
                command.arg("--filterset").arg(none_of.join(" and "));
            }
            tests(&mut command)?
        } else {
            let mut command = self.workspace.cargo();
            command.args([
                "test",
                "--workspace",
                "--locked",
                "--no-fail-fast",
                "--lib",
                "--bins",
                "--tests",
            ]);
            for name in &others {
                command.arg("--exclude").arg(name);
            }
            tests(&mut command)?
        };
        let mut documentation = self.workspace.cargo();
        documentation.args(["test", "--workspace", "--locked", "--no-fail-fast", "--doc"]);
        counts += tests(&mut documentation)?;
        Ok(counts)
    }

    fn root_tests(&self, stage: Stage) -> Result<Counts> {
        let Some((_, directory)) = ROOT_TESTS.iter().find(|(of, _)| *of == stage) else {
            bail!("{} has no directory of tests", stage.name());
        };
        let Some(package) = self.workspace.package_in(directory) else {
            bail!("this workspace has no package in {directory}");
        };
        // The tests start the agent's own binary, which they do not depend on as a library.
        process::run(
            self.workspace
                .cargo()
                .args(["build", "--workspace", "--bins", "--locked"]),
        )?;
        if stage == Stage::Kernel {
            mount_bpffs()?;
        }
        if self.nextest {
            return tests(
                self.nextest()
                    .env(REQUIRE_ROOT, "1")
                    .arg("--filterset")
                    .arg(format!("package({package})")),
            );
        }
        let mut counts = Counts::default();
        for test in Artifacts::tests(self.workspace)?
            .iter()
            .filter(|test| test.directory == *directory)
        {
            let mut command = Command::new(&test.executable);
            counts += tests(
                command
                    .env(REQUIRE_ROOT, "1")
                    .arg("--test-threads=1")
                    .current_dir(self.workspace.root.join(directory)),
            )?;
        }
        Ok(counts)
    }

    /// The packages of the root stages that are chosen and that the workspace has.
    fn packages(&self, chosen: impl Fn(Stage) -> bool) -> Vec<&str> {
        let directories = ROOT_TESTS.iter().filter(|(stage, _)| chosen(*stage));
        directories
            .filter_map(|(_, directory)| self.workspace.package_in(directory))
            .collect()
    }

    fn nextest(&self) -> Command {
        let mut command = self.workspace.cargo();
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
            "--no-tests=pass",
        ]);
        command
    }
}

/// A command that stands for one test: it passes or fails as a whole.
fn check(command: &mut Command) -> Result<Counts> {
    Ok(Counts::one(process::watched(command, |_| {})?))
}

/// A test runner: what it counted.
fn tests(command: &mut Command) -> Result<Counts> {
    let mut counts = Counts::default();
    let success = process::watched(command, |line| {
        if let Some(counted) = Counts::in_line(line) {
            counts += counted;
        }
    })?;
    Ok(counts.with_exit(success))
}
