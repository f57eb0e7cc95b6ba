//! What an init system would do.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use crate::report;

/// Filesystem type and where it goes.
const FILESYSTEMS: [(&str, &str); 7] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("bpf", "/sys/fs/bpf"),
];

/// Mounts filesystems, loads the modules of the image in their order, and brings up loopback.
pub(crate) fn prepare(modules: &Path) -> Result<()> {
    for (kind, target) in FILESYSTEMS {
        fs::create_dir_all(target).with_context(|| format!("make {target}"))?;
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            // The kernel may have mounted /dev itself.
            Ok(()) | Err(nix::errno::Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("mount {kind} at {target}")),
        }
    }
    let kernel = nix::sys::utsname::uname()?;
    report::comment(&format!("kernel {}", kernel.release().to_string_lossy()));
    load_modules(modules)?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()
        .context("start ip")?;
    if !up.success() {
        bail!("ip link set lo up: {up}");
    }
    Ok(())
}

/// Restarts the machine, which ends qemu (it is told not to restart).
pub(crate) fn stop() -> ExitCode {
    match reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        // The end of the first process makes the kernel panic, which ends qemu too.
        Err(error) => {
            report::comment(&format!("cannot stop the machine: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Files are named so that a module comes after those it needs.
fn load_modules(directory: &Path) -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .with_context(|| format!("read {}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    for file in files {
        let module = File::open(&file).with_context(|| format!("open {}", file.display()))?;
        match finit_module(&module, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("load {}", file.display())),
        }
    }
    Ok(())
}
