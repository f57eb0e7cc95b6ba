//! Where the programs are that run in nodes and pods.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The test application (`tramline-testapp`): `TRAMLINE_TESTAPP`, else beside the running program.
///
/// # Errors
/// It is not built; the message has the command.
pub fn testapp() -> Result<PathBuf> {
    find(
        "TRAMLINE_TESTAPP",
        "tramline-testapp",
        "cargo build -p tramline-harness",
    )
}

/// The node agent (`tramline`): `TRAMLINE_BIN`, else beside the running program.
///
/// # Errors
/// It is not built; the message has the command.
pub fn agent() -> Result<PathBuf> {
    find(
        "TRAMLINE_BIN",
        "tramline",
        "cargo xtask build-ebpf && cargo build -p tramline-node-agent",
    )
}

/// The same as a next version may be (`tramline-next`, see tests/next): `TRAMLINE_NEXT_BIN`, else beside the running program.
///
/// # Errors
/// It is not built; the message has the command.
pub fn next_agent() -> Result<PathBuf> {
    find(
        "TRAMLINE_NEXT_BIN",
        "tramline-next",
        "cargo xtask build-ebpf --next-layout && cargo build -p tramline-next",
    )
}

/// The benchmark (`tramline-bench`): `TRAMLINE_BENCH`, else beside the running program.
///
/// # Errors
/// It is not built; the message has the command.
pub fn bench() -> Result<PathBuf> {
    find(
        "TRAMLINE_BENCH",
        "tramline-bench",
        "cargo build -p tramline-bench",
    )
}

fn find(variable: &str, name: &str, build: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        if path.is_file() {
            return Ok(path);
        }
        bail!("{variable}={} is not a file", path.display());
    }
    let own = std::env::current_exe().context("find the running program")?;
    // A test runs from target/<profile>/deps, a program from target/<profile>.
    let found = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    found.with_context(|| format!("{name} is not built: run `{build}` (or set {variable})"))
}
