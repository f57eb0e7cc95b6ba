//! What `tramline doctor` tries of eBPF on this machine: each program through the verifier, and a connect of this
//! process seen by a program at the cgroup root.

use crate::{
    doctor::Check,
    kernel::{KernelError, load},
};
use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

/// Tries everything; leaves nothing behind.
pub fn checks(cgroup: &Path) -> Vec<Check> {
    let mut checks: Vec<Check> = load::PROGRAMS.into_iter().map(verifier).collect();
    checks.push(root_sees_connects(cgroup));
    checks
}

fn verifier(program: &'static str) -> Check {
    let name = format!("eBPF program {program}");
    match load::verify(program) {
        Ok(()) => Check::ok(name, "accepted by this kernel's verifier"),
        Err(error @ KernelError::NoObject) => {
            Check::failed(name, error.to_string(), "cargo xtask build-ebpf")
        }
        Err(error) => Check::failed(
            name,
            with_causes(&error),
            "needs root (CAP_BPF, CAP_NET_ADMIN) and Linux 6.1 or later; see docs/KERNELS.md",
        ),
    }
}

/// A root that only looks like the host's (a container's own cgroup namespace) would capture nothing, silently: so
/// a program is attached there and a connect is made.
fn root_sees_connects(cgroup: &Path) -> Check {
    let name = "eBPF at the cgroup root";
    let probe = || {
        // Nothing listens on the discard port of loopback, as a rule; the hook runs before anybody could answer.
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        drop(TcpStream::connect_timeout(&target, Duration::from_millis(200)));
    };
    match load::seen_below(cgroup, probe) {
        Ok(0) => Check::failed(
            name,
            format!("a program at {} saw no connect of this process", cgroup.display()),
            "run in the host's cgroup namespace, or name the host's cgroup2 mount with --cgroup-root",
        ),
        Ok(seen) => Check::ok(
            name,
            format!(
                "a program at {} saw this process connect ({seen})",
                cgroup.display()
            ),
        ),
        Err(error) => Check::failed(name, with_causes(&error), "mount cgroup2 and run as root"),
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}
