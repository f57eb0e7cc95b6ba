//! What compiles the eBPF programs: a rustc that has its library source beside it, and bpf-linker on an LLVM no older
//! than that rustc's.
//!
//! `-Z build-std=core` compiles `core` from source, so compiler and source must be of one version; `RUSTC_BOOTSTRAP`
//! lets a stable compiler do it. Any rustc with `lib/rustlib/src` in its sysroot will do: rustup's with the `rust-src`
//! component, or Debian's packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::workspace;

/// The release of bpf-linker that is installed when none is there.
pub(crate) const BPF_LINKER: &str = "0.13.0";

/// aya-ebpf 0.2 declares this as its oldest compiler.
const OLDEST_RUSTC: (u32, u32) = (1, 87);

/// A compiler that can build `core` for the BPF target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rustc {
    pub(crate) path: PathBuf,
    /// `1.96.0`
    pub(crate) release: String,
    /// The major version of its LLVM: bpf-linker must read the bitcode that it writes.
    pub(crate) llvm: u32,
}

impl Rustc {
    /// The compilers to choose from, best first: `TRAMLINE_EBPF_RUSTC` alone if set; else the active toolchain,
    /// rustup's others, and `/usr/bin/rustc` (Debian's).
    pub(crate) fn candidates() -> Result<Vec<Self>> {
        if let Some(chosen) = env::var_os("TRAMLINE_EBPF_RUSTC") {
            let path = PathBuf::from(chosen);
            let Some(rustc) = Self::inspect(&path)? else {
                bail!(
                    "TRAMLINE_EBPF_RUSTC={} is older than {}.{} or has no library source beside it",
                    path.display(),
                    OLDEST_RUSTC.0,
                    OLDEST_RUSTC.1
                );
            };
            return Ok(vec![rustc]);
        }
        let mut found: Vec<Self> = Vec::new();
        for path in paths() {
            // A broken toolchain among several is no reason to stop.
            if let Ok(Some(rustc)) = Self::inspect(&path)
                && !found.contains(&rustc)
            {
                found.push(rustc);
            }
        }
        Ok(found)
    }

    /// None if this compiler cannot do it.
    fn inspect(path: &Path) -> Result<Option<Self>> {
        let about = process::output(Command::new(path).arg("-vV"))?;
        let sysroot = process::output(Command::new(path).args(["--print", "sysroot"]))?;
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
        let (release, llvm) = versions(&about).with_context(|| format!("`{} -vV`", path.display()))?;
        let new_enough = major_minor(&release).is_some_and(|version| version >= OLDEST_RUSTC);
        Ok((new_enough && source.is_file()).then(|| Self {
            path: path.to_owned(),
            release,
            llvm,
        }))
    }
}

/// A bpf-linker that reads the bitcode of an LLVM of this major version: `TRAMLINE_BPF_LINKER` if set, the one that
/// setup installed, or one on PATH that is linked with such an LLVM.
pub(crate) fn linker(llvm: u32) -> Option<PathBuf> {
    if let Some(chosen) = env::var_os("TRAMLINE_BPF_LINKER") {
        return Some(PathBuf::from(chosen));
    }
    let own = linker_root(llvm).join("bin/bpf-linker");
    if own.is_file() {
        return Some(own);
    }
    let path = env::var_os("PATH")?;
    let on_path = env::split_paths(&path).map(|directory| directory.join("bpf-linker"));
    on_path.filter(|path| path.is_file()).find(|path| {
        let libraries = process::output(Command::new("ldd").arg(path)).unwrap_or_default();
        linked_llvm(&libraries).is_some_and(|linked| linked >= llvm)
    })
}

/// Where setup installs bpf-linker for this LLVM: of our own, so that no tool of the user's is replaced.
pub(crate) fn linker_root(llvm: u32) -> PathBuf {
    workspace::cache()
        .join("tools")
        .join(format!("bpf-linker-{BPF_LINKER}-llvm{llvm}"))
}

/// The prefix of an installed LLVM with its headers and `llvm-config`, for building bpf-linker.
pub(crate) fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if debian.join("bin/llvm-config").is_file() && debian.join("include/llvm/Config").is_dir() {
        return Some(debian);
    }
    for program in [format!("llvm-config-{llvm}"), "llvm-config".to_owned()] {
        let version = process::output(Command::new(&program).arg("--version")).unwrap_or_default();
        if major_minor(version.trim()).is_some_and(|(major, _)| major == llvm) {
            let prefix = process::output(Command::new(&program).arg("--prefix")).ok()?;
            return Some(PathBuf::from(prefix.trim()));
        }
    }
    None
}

fn paths() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if let Ok(sysroot) = process::output(Command::new("rustc").args(["--print", "sysroot"])) {
        paths.push(Path::new(sysroot.trim()).join("bin/rustc"));
    }
    let rustup = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")));
    if let Some(toolchains) = rustup.and_then(|home| fs::read_dir(home.join("toolchains")).ok()) {
        let mut others: Vec<_> = toolchains
            .flatten()
            .map(|entry| entry.path().join("bin/rustc"))
            .collect();
        // Stable before nightly: `nightly-…` and `1.95-…`, `stable-…` sort the other way round.
        others.sort_by_key(|path| (path.to_string_lossy().contains("nightly"), path.clone()));
        paths.extend(others);
    }
    paths.push(PathBuf::from("/usr/bin/rustc"));
    paths.retain(|path| path.is_file());
    paths
}

/// `release:` and the major of `LLVM version:` in what `rustc -vV` prints.
fn versions(about: &str) -> Result<(String, u32)> {
    let field = |name: &str| {
        about
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let release = field("release:").context("no `release:` line")?;
    let llvm = field("LLVM version:").context("no `LLVM version:` line")?;
    let (major, _) = major_minor(llvm).with_context(|| format!("LLVM version `{llvm}`"))?;
    Ok((release.to_owned(), major))
}

/// `1.96.0-nightly` is `(1, 96)`; Debian's `1.96.0+dfsg1-1~deb12u2` too.
pub(crate) fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The major in `libLLVM.so.22.1 => …` or `libLLVM-19.so => …`.
fn linked_llvm(libraries: &str) -> Option<u32> {
    let name = libraries
        .split_whitespace()
        .find_map(|word| word.strip_prefix("libLLVM"))?;
    let digits: String = name
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_rustc() {
        let about =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(versions(about).unwrap(), ("1.96.0".to_owned(), 22));
        assert!(versions("release: 1.96.0\n").is_err());
    }

    #[test]
    fn debian_and_nightly_versions_are_understood() {
        assert_eq!(major_minor("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(major_minor("1.98.0-nightly"), Some((1, 98)));
        assert_eq!(major_minor("none"), None);
    }

    #[test]
    fn the_llvm_that_a_linker_is_linked_with_is_read_from_ldd() {
        assert_eq!(
            linked_llvm("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x0)\n"),
            Some(22)
        );
        assert_eq!(
            linked_llvm("\tlibLLVM-19.so => /usr/lib/libLLVM-19.so (0x0)\n"),
            Some(19)
        );
        assert_eq!(linked_llvm("\tlibc.so.6 => /lib/libc.so.6\n"), None);
    }
}
