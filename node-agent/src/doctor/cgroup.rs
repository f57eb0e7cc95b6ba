//! Where cgroup2 is mounted, and whether what is seen there is the host's root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::Check;

/// Inode of the initial cgroup namespace (`PROC_CGROUP_INIT_INO`, include/linux/proc_ns.h).
const INITIAL_CGROUP_NAMESPACE: u64 = 0xEFFF_FFFB;

const NAME: &str = "cgroup2";

/// One mount of cgroup2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Which directory of the hierarchy it shows, as seen from this cgroup namespace.
    pub(super) root: String,
    pub(super) path: PathBuf,
}

/// That programs attached there see every process is proven by the kernel stage's probe process; this says where.
pub(super) fn check(given: Option<&Path>) -> Check {
    let fix = "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified, or give --cgroup-root";
    if let Some(path) = given {
        return match statfs(path) {
            Ok(found) if found.filesystem_type() == CGROUP2_SUPER_MAGIC => {
                Check::ok(NAME, format!("{} (given)", path.display()))
            }
            Ok(_) => Check::failed(NAME, format!("{} is not cgroup2", path.display()), fix),
            Err(error) => Check::failed(NAME, format!("{}: {error}", path.display()), fix),
        };
    }
    let mounts = match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mountinfo) => mounts(&mountinfo),
        Err(error) => return Check::failed(NAME, format!("/proc/self/mountinfo: {error}"), "mount /proc"),
    };
    let initial =
        fs::metadata("/proc/self/ns/cgroup").is_ok_and(|found| found.ino() == INITIAL_CGROUP_NAMESPACE);
    judge(&mounts, initial)
}

pub(super) fn judge(mounts: &[Mount], initial_namespace: bool) -> Check {
    let Some(mount) = mounts.iter().find(|mount| mount.root == "/").or(mounts.first()) else {
        let fix = "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified";
        return Check::failed(NAME, "not mounted", fix);
    };
    let path = mount.path.display();
    match (initial_namespace, mount.root.as_str()) {
        (true, "/") => Check::ok(NAME, format!("{path}, the host's root")),
        (true, root) => Check::failed(
            NAME,
            format!("{path} shows only {root} of the hierarchy: programs there would miss other processes"),
            "mount the host's /sys/fs/cgroup into this container, or give --cgroup-root",
        ),
        (false, _) => Check::warning(
            NAME,
            format!("{path}, seen from inside a cgroup namespace: its root may not be the host's"),
            "run in the host's cgroup namespace (hostPID and a hostPath mount), or give --cgroup-root",
        ),
    }
}

/// The cgroup2 mounts of proc_pid_mountinfo(5). Paths with blanks are written in octal there and decoded.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        if after.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = before.split(' ').skip(3);
        let root = unescape(fields.next()?);
        Some(Mount {
            root,
            path: unescape(fields.next()?).into(),
        })
    };
    mountinfo.lines().filter_map(parse).collect()
}

fn unescape(text: &str) -> String {
    text.replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}
