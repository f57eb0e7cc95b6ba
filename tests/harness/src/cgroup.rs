//! cgroup2: where it is mounted, and directories in it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::wait;

/// Where cgroup2 is mounted when the machine has not mounted it anywhere.
const PRIVATE_MOUNT: &str = "/run/tramline-test-cgroup2";

/// The cgroup2 mount of this machine; mounts one where there is none.
///
/// # Errors
/// `/proc/self/mounts` is unreadable, or mounting is refused (not root).
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    if let Some(found) = find_mount(&mounts) {
        return Ok(found);
    }
    fs::create_dir_all(PRIVATE_MOUNT)?;
    mount(
        Some("cgroup2"),
        PRIVATE_MOUNT,
        Some("cgroup2"),
        MsFlags::empty(),
        None::<&str>,
    )
    .with_context(|| format!("mount cgroup2 at {PRIVATE_MOUNT}"))?;
    Ok(PathBuf::from(PRIVATE_MOUNT))
}

fn find_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// Kills every process in the subtree at `path`, waits for their end and removes the directories.
///
/// A subtree that is not there is a success.
///
/// # Errors
/// A process did not end within five seconds, or a directory could not be removed.
pub fn destroy(path: &Path) -> Result<()> {
    match fs::write(path.join("cgroup.kill"), "1") {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("kill the processes in {}", path.display())),
    }
    let limit = Duration::from_secs(5);
    wait::until("the end of the processes in a cgroup", limit, || {
        let events = fs::read_to_string(path.join("cgroup.events"))?;
        Ok(events.lines().any(|l| l == "populated 0").then_some(()))
    })?;
    remove_tree(path)
}

fn remove_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    // EBUSY for a moment after the last process: its exit is not finished when `populated` turns 0.
    wait::until(
        "an empty cgroup",
        Duration::from_secs(2),
        || match fs::remove_dir(path) {
            Ok(()) => Ok(Some(())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(())),
            Err(e) if e.kind() == ErrorKind::ResourceBusy => Ok(None),
            Err(e) => Err(e).with_context(|| format!("remove {}", path.display())),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_by_type_not_by_place() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_mount(mounts), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_mount("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n"), None);
    }
}
