//! What this machine offers for running the agent, each thing tried rather than looked up.

mod cgroup;
mod host;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// It works.
    Ok,
    /// The agent runs, with something less.
    Warning,
    /// The agent does not run without it.
    Failed,
}

/// One thing tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// How it came out.
    pub state: CheckState,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Check {
    /// Something that works.
    pub fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: CheckState::Ok,
            detail: detail.into(),
            fix: None,
        }
    }

    /// Something the agent can do without.
    pub fn warning(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (name, detail, fix) = (name.into(), detail.into(), fix.into());
        Self {
            name,
            state: CheckState::Warning,
            detail,
            fix: Some(fix),
        }
    }

    /// Something the agent needs.
    pub fn failed(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (name, detail, fix) = (name.into(), detail.into(), fix.into());
        Self {
            name,
            state: CheckState::Failed,
            detail,
            fix: Some(fix),
        }
    }
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// The cgroup2 directory given, if any.
    pub cgroup_root: Option<PathBuf>,
    /// The BPF file system.
    pub bpffs: PathBuf,
    /// The agent's state directory.
    pub state_dir: PathBuf,
}

/// Every check that needs no eBPF program.
pub fn host_checks(places: &Places) -> Vec<Check> {
    vec![
        host::kernel(),
        host::capabilities(),
        host::lockdown(),
        host::btf(),
        host::bpffs(&places.bpffs),
        cgroup::check(places.cgroup_root.as_deref()),
        host::network_namespace(),
        host::transparent_ipv4(),
        host::transparent_ipv6(),
        host::socket_mark(),
        host::mark_sysctls(),
        host::mptcp(),
        host::fast_open(),
        host::state_directory(&places.state_dir),
    ]
}
