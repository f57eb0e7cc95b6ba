//! Processor time of the run's cgroups.
//!
//! `cpu.stat` counts microseconds, also of processes that have ended and of children; `/proc/PID/stat` counts clock ticks
//! of one process. The kernel keeps these basic counters whether or not the cpu controller is on (cgroup-v2.rst, `cpu.stat`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tramline_harness::net::Net;

/// Where the counters are.
#[derive(Debug)]
pub(crate) struct Meter {
    all: PathBuf,
    agents: Vec<PathBuf>,
}

/// Seconds of processor time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// Clients, servers and agents, with the kernel's work on their account.
    pub(crate) all: f64,
    /// The agents of both nodes together.
    pub(crate) agents: f64,
}

impl Meter {
    pub(crate) fn of(net: &Net) -> Self {
        Self {
            all: net.run().cgroup().to_owned(),
            agents: net.nodes().iter().map(|node| node.cgroup.join("agent")).collect(),
        }
    }

    pub(crate) fn read(&self) -> Result<Cpu> {
        Ok(Cpu {
            all: usage(&self.all)?,
            agents: self.agents.iter().map(|path| usage(path)).sum::<Result<f64>>()?,
        })
    }
}

impl Cpu {
    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            all: self.all - earlier.all,
            agents: self.agents - earlier.agents,
        }
    }
}

fn usage(cgroup: &Path) -> Result<f64> {
    let file = cgroup.join("cpu.stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    seconds(&text).with_context(|| format!("no usage_usec in {}", file.display()))
}

fn seconds(text: &str) -> Option<f64> {
    let value = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(value.parse::<f64>().ok()? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_among_others() {
        let text = "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n";
        assert_eq!(seconds(text), Some(1.5));
        assert_eq!(seconds("user_usec 1\n"), None);
    }
}
