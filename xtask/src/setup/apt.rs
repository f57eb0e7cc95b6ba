//! Debian's packages: looked up and installed without questions, the lists refreshed at most once a run.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;
use crate::report;
use crate::toolchain::major_minor;

/// apt-get and apt-cache; remembers that the lists are fresh.
#[derive(Debug, Default)]
pub(crate) struct Apt {
    updated: bool,
}

impl Apt {
    /// Installs these packages; nothing happens for an empty list.
    pub(crate) fn install(&mut self, packages: &[String]) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        if !process::is_root() {
            bail!(
                "installing needs root: run this as root, or install by hand (`cargo xtask setup --no-install` lists it)"
            );
        }
        self.update();
        report::step(format!("installing {}", packages.join(" ")));
        process::run(
            Command::new("apt-get")
                .args(["install", "--yes", "--quiet", "--no-install-recommends"])
                .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"])
                .args(packages)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    }

    /// The version that would be installed, from lists that were refreshed if this is root.
    pub(crate) fn candidate(&mut self, package: &str) -> Result<Option<String>> {
        self.refresh();
        Ok(candidate(package))
    }

    /// The version that would be installed, from the lists as they are.
    pub(crate) fn known_candidate(package: &str) -> Option<String> {
        candidate(package)
    }

    /// Refreshes the lists, once, if this is root.
    pub(crate) fn refresh(&mut self) {
        if process::is_root() {
            self.update();
        }
    }

    fn update(&mut self) {
        if self.updated {
            return;
        }
        self.updated = true;
        report::step("refreshing the package lists");
        let update = process::run(
            Command::new("apt-get")
                .args(["update", "--quiet", "-o", "DPkg::Lock::Timeout=300"])
                .env("DEBIAN_FRONTEND", "noninteractive"),
        );
        // One source of several that does not answer is no reason to stop; a package that is then not found is.
        if let Err(error) = update {
            report::note(format!("{error:#}; going on with the lists that are there"));
        }
    }
}

/// Debian's compiler with its source: `rustc-web` where the release has it (kept current for browsers), else `rustc`.
pub(crate) fn rust_packages(apt: &mut Apt) -> Result<Vec<String>> {
    for [compiler, source] in [["rustc-web", "rust-web-src"], ["rustc", "rust-src"]] {
        let version = apt.candidate(compiler)?;
        if version.is_some_and(|version| major_minor(&version).is_some_and(|version| version >= (1, 87))) {
            return Ok(vec![compiler.to_owned(), source.to_owned()]);
        }
    }
    bail!(
        "this Debian's packages have no rustc of 1.87 or later: install one with rustup, and its component rust-src"
    )
}

/// LLVM's headers, what it links with, and clang for the C++ library that both need.
pub(crate) fn llvm_packages(llvm: u32) -> Vec<String> {
    vec![
        format!("llvm-{llvm}-dev"),
        format!("clang-{llvm}"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".to_owned(),
    ]
}

/// The whole toolchain by name, for `--no-install`; nothing is refreshed for it.
pub(crate) fn whole_ebpf_toolchain() -> Vec<String> {
    let mut packages = vec!["rustc-web".to_owned(), "rust-web-src".to_owned()];
    let depends =
        process::output(Command::new("apt-cache").args(["depends", "--recurse", "--important", "rustc-web"]));
    if let Some(llvm) = llvm_among(&depends.unwrap_or_default()) {
        packages.extend(llvm_packages(llvm));
    }
    packages
}

fn candidate(package: &str) -> Option<String> {
    // C: the words of apt-cache are translated.
    let policy = process::output(
        Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )
    .ok()?;
    candidate_in(&policy)
}

fn candidate_in(policy: &str) -> Option<String> {
    let version = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (version != "(none)").then(|| version.to_owned())
}

/// The LLVM that a package of these depends on: `libllvm22`.
fn llvm_among(depends: &str) -> Option<u32> {
    depends
        .split_whitespace()
        .find_map(|word| word.strip_prefix("libllvm")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_the_policy() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("1.96.0+dfsg1-1~deb12u2"));
        assert_eq!(candidate_in("x:\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }

    #[test]
    fn the_llvm_of_the_compiler_is_read_from_its_dependencies() {
        assert_eq!(
            llvm_among("libstd-rust-web-1.96\n  Depends: libgcc-s1\n  Depends: libllvm22\n"),
            Some(22)
        );
        assert_eq!(llvm_among("  Depends: libc6\n"), None);
    }

    #[test]
    fn the_packages_are_named_after_the_llvm() {
        assert!(llvm_packages(23).contains(&"llvm-23-dev".to_owned()));
    }
}
