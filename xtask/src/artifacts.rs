//! What cargo builds, by name: programs, and test programs with the package that they belong to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::report;
use crate::workspace::Workspace;

/// One test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// The package's directory, relative to the workspace.
    pub(crate) directory: String,
    /// The name of its target: `same_node` for `tests/same_node.rs`.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
}

/// Cargo's `compiler-artifact` message, as far as it is used here.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// Builds and says where the results are.
pub(crate) struct Artifacts;

impl Artifacts {
    /// Builds the workspace's programs.
    pub(crate) fn binaries(workspace: &Workspace) -> Result<BTreeMap<String, PathBuf>> {
        let json = build(
            workspace
                .cargo()
                .args(["build", "--workspace", "--bins", "--locked"]),
        )?;
        Ok(programs(&json))
    }

    /// Builds the programs of some packages as they are shipped: link-time optimisation of all others would take minutes
    /// for nothing.
    pub(crate) fn release_binaries(
        workspace: &Workspace,
        packages: &[&str],
    ) -> Result<BTreeMap<String, PathBuf>> {
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--bins", "--locked"]);
        command.args(packages.iter().map(|package| format!("--package={package}")));
        Ok(programs(&build(&mut command)?))
    }

    /// Builds the tests, in the same way as the test stages do, and returns the integration tests among them.
    pub(crate) fn tests(workspace: &Workspace) -> Result<Vec<TestProgram>> {
        let json = build(
            workspace
                .cargo()
                .args(["test", "--workspace", "--no-run", "--locked"]),
        )?;
        Ok(test_programs(&json, &workspace.root))
    }
}

fn build(command: &mut Command) -> Result<String> {
    command
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    report::note("$ cargo build");
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the build failed: {}", output.status);
    }
    String::from_utf8(output.stdout).context("cargo printed something that is not UTF-8")
}

fn messages(json: &str) -> impl Iterator<Item = Message> {
    // Other lines are other messages, or what a build script printed.
    json.lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact")
}

fn programs(json: &str) -> BTreeMap<String, PathBuf> {
    messages(json)
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

fn test_programs(json: &str, root: &Path) -> Vec<TestProgram> {
    let tests = messages(json).filter(|message| message.profile.as_ref().is_some_and(|profile| profile.test));
    tests
        .filter_map(|message| {
            let manifest = message.manifest_path?;
            let directory = manifest
                .parent()?
                .strip_prefix(root)
                .ok()?
                .to_string_lossy()
                .into_owned();
            let target = message
                .target
                .filter(|target| target.kind.iter().any(|kind| kind == "test"))?;
            Some(TestProgram {
                directory,
                name: target.name,
                executable: message.executable?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_found_among_the_messages() {
        let json = r#"
{"reason":"compiler-artifact","manifest_path":"/w/tests/e2e/Cargo.toml","target":{"kind":["test"],"name":"same_node"},"profile":{"test":true},"executable":"/t/same_node-1"}
{"reason":"compiler-artifact","manifest_path":"/w/tests/e2e/Cargo.toml","target":{"kind":["lib"],"name":"lib"},"profile":{"test":true},"executable":"/t/lib-1"}
{"reason":"build-finished","success":true}
not json
"#;
        let expected = TestProgram {
            directory: "tests/e2e".to_owned(),
            name: "same_node".to_owned(),
            executable: PathBuf::from("/t/same_node-1"),
        };
        assert_eq!(test_programs(json, Path::new("/w")), [expected]);
    }
}
