//! A run: the id that everything a test makes carries, and how all of it is removed, also after a crash.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use crate::{cgroup, netns};

/// One directory per run, named by its id.
const STATE: &str = "/run/tramline-test";

/// Who made a run; kept in its state directory.
#[derive(Debug, Deserialize, Serialize)]
struct Owner {
    kind: String,
    pid: u32,
    /// Field 22 of `/proc/PID/stat`: a process id alone could be another process by now.
    start_time: u64,
    kept: bool,
}

/// Everything one run has made. Dropping it removes all of it, unless [`Run::keep`] was called.
#[derive(Debug)]
pub struct Run {
    id: String,
    dir: PathBuf,
    cgroup: PathBuf,
    keep: bool,
}

/// Which runs [`clean`] removes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// Those whose process is gone and which nobody asked to keep.
    Crashed,
    /// Those whose process is gone.
    NotRunning,
}

impl Run {
    /// Begins a run: state directory, cgroup, private bpffs.
    ///
    /// # Errors
    /// Not root, or the machine refuses one of them.
    pub fn begin(kind: &str) -> Result<Self> {
        if !is_root() {
            bail!("making network namespaces needs root");
        }
        let pid = std::process::id();
        let owner = Owner {
            kind: kind.to_owned(),
            pid,
            start_time: start_time(pid).unwrap_or(0),
            kept: false,
        };
        let (id, dir) = claim()?;
        fs::write(dir.join("owner.json"), serde_json::to_vec(&owner)?)?;
        let run = Self {
            cgroup: cgroup_of(&id)?,
            id,
            dir,
            keep: false,
        };
        fs::create_dir(&run.cgroup).with_context(|| format!("make cgroup {}", run.cgroup.display()))?;
        for part in ["bpf", "logs", "config"] {
            fs::create_dir(run.dir.join(part))?;
        }
        let bpf = run.dir.join("bpf");
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount bpffs at {}", bpf.display()))?;
        Ok(run)
    }

    /// The id, six characters.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The state directory: `bpf` (a bpffs), `logs`, `config`, whatever else the run needs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cgroup above all processes of the run.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The name of the namespace of `part`.
    #[must_use]
    pub fn netns_name(&self, part: &str) -> String {
        format!("{}{part}", netns_prefix(&self.id))
    }

    /// Leaves everything in place after the end of this process, until someone cleans.
    ///
    /// # Errors
    /// The state directory is not writable.
    pub fn keep(&mut self) -> Result<()> {
        let path = self.dir.join("owner.json");
        let mut owner: Owner = serde_json::from_slice(&fs::read(&path)?)?;
        owner.kept = true;
        fs::write(path, serde_json::to_vec(&owner)?)?;
        self.keep = true;
        Ok(())
    }

    /// Removes everything now, and says what was in the way.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn end(mut self) -> Result<()> {
        self.keep = true;
        remove(&self.id)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.keep {
            // A destructor cannot report; what stays behind is found by the next `clean`.
            let _ = remove(&self.id);
        }
    }
}

/// Whether this process may make namespaces.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Removes runs that were left behind; returns their ids and kinds.
///
/// # Errors
/// Something of them could not be removed.
pub fn clean(which: Which) -> Result<Vec<(String, String)>> {
    let Ok(entries) = fs::read_dir(STATE) else {
        return Ok(Vec::new());
    };
    let mut removed = Vec::new();
    for entry in entries {
        let id = entry?.file_name().to_string_lossy().into_owned();
        let owner = fs::read(Path::new(STATE).join(&id).join("owner.json"))
            .ok()
            .and_then(|text| serde_json::from_slice::<Owner>(&text).ok());
        let (kind, left) = match &owner {
            // The owner file is the first thing written: a run without one died at birth, or is being born.
            None => ("unknown".to_owned(), which == Which::NotRunning),
            Some(o) => {
                let dead = start_time(o.pid) != Some(o.start_time);
                (o.kind.clone(), dead && (which == Which::NotRunning || !o.kept))
            }
        };
        if left {
            remove(&id).with_context(|| format!("clean run {id}"))?;
            removed.push((id, kind));
        }
    }
    Ok(removed)
}

/// Removes what this very process has made and not yet removed: for the end by a signal.
///
/// # Errors
/// Something could not be removed.
pub fn clean_own() -> Result<()> {
    let Ok(entries) = fs::read_dir(STATE) else {
        return Ok(());
    };
    for entry in entries {
        let id = entry?.file_name().to_string_lossy().into_owned();
        let owner = fs::read(Path::new(STATE).join(&id).join("owner.json"))
            .ok()
            .and_then(|text| serde_json::from_slice::<Owner>(&text).ok());
        if owner.is_some_and(|o| o.pid == std::process::id() && !o.kept) {
            remove(&id)?;
        }
    }
    Ok(())
}

/// What of the run `id` is still there: namespaces, cgroup, state directory, mounts. Empty when all is clean.
///
/// # Errors
/// The places to look at are unreadable.
pub fn leftovers(id: &str) -> Result<Vec<String>> {
    let mut found = netns::names(&netns_prefix(id))?;
    for path in [cgroup_of(id)?, Path::new(STATE).join(id)] {
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let dir = format!("{STATE}/{id}/");
    found.extend(mounts.lines().filter(|l| l.contains(&dir)).map(str::to_owned));
    Ok(found)
}

fn remove(id: &str) -> Result<()> {
    // Processes first: they hold namespaces and pins.
    cgroup::destroy(&cgroup_of(id)?)?;
    for name in netns::names(&netns_prefix(id))? {
        netns::delete(&name)?;
    }
    let dir = Path::new(STATE).join(id);
    // EINVAL when it was never mounted.
    let _ = umount2(&dir.join("bpf"), MntFlags::MNT_DETACH);
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(())
}

fn claim() -> Result<(String, PathBuf)> {
    fs::create_dir_all(STATE)?;
    for attempt in 0..16_u32 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
        let mixed = now
            .wrapping_mul(2_654_435_761)
            .wrapping_add(std::process::id() ^ (attempt << 16));
        let id = format!("{:06x}", mixed & 0x00ff_ffff);
        let dir = Path::new(STATE).join(&id);
        if fs::create_dir(&dir).is_ok() {
            return Ok((id, dir));
        }
    }
    bail!("no free run id under {STATE}")
}

fn netns_prefix(id: &str) -> String {
    format!("tl{id}-")
}

fn cgroup_of(id: &str) -> Result<PathBuf> {
    Ok(cgroup::mount_point()?.join(format!("tramline-test-{id}")))
}

/// When the process began, in clock ticks since boot; `None` when it is gone.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses and may hold spaces: count from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
