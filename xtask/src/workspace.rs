//! Where things are: the workspace, its packages, the target directory, and the cache for tools and kernels.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::build_ebpf::Object;
use crate::process;

/// What `cargo metadata` says about this workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

impl Workspace {
    /// Asks cargo, which knows CARGO_TARGET_DIR and the user's configuration.
    pub(crate) fn read() -> Result<Self> {
        let json = process::output(
            Command::new(cargo())
                .args(["metadata", "--no-deps", "--format-version=1"])
                .current_dir(source_root()),
        )?;
        serde_json::from_str(&json).context("cargo metadata printed something unexpected")
    }

    /// The package whose directory this is, relative to the root, if the workspace has it.
    pub(crate) fn package_in(&self, directory: &str) -> Option<&str> {
        let manifest = self.root.join(directory).join("Cargo.toml");
        self.packages
            .iter()
            .find(|package| package.manifest_path == manifest)
            .map(|package| package.name.as_str())
    }

    /// Where an eBPF object is put; `node-agent/build.rs` looks there.
    pub(crate) fn ebpf_object(&self, object: Object) -> PathBuf {
        self.target.join("ebpf").join(match object {
            Object::Debug => "debug/tramline-ebpf.o",
            Object::Release => "release/tramline-ebpf.o",
            Object::Next => "debug/tramline-ebpf-next.o",
        })
    }

    /// A cargo command at the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root);
        command
    }
}

/// The cargo that runs this, or the one on PATH.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// What outlives one checkout and is slow to get: bpf-linker, unpacked kernels. `XDG_CACHE_HOME` moves it.
pub(crate) fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home)
        .unwrap_or_else(|| source_root().join("target"))
        .join("tramline")
}

fn source_root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_by_directory() {
        let workspace = Workspace::read().unwrap();
        assert_eq!(workspace.package_in("xtask"), Some("xtask"));
        assert_eq!(workspace.package_in("node-agent"), Some("tramline-node-agent"));
        assert_eq!(workspace.package_in("tests/none"), None);
        assert!(
            workspace
                .ebpf_object(Object::Release)
                .ends_with("ebpf/release/tramline-ebpf.o")
        );
    }
}
