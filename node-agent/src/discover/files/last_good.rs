//! The last accepted manifests, kept in the state directory: what an agent goes on with that starts beside a directory
//! somebody is in the middle of breaking.
//!
//! The manifests themselves are kept, not what they were made into: a later version reads them by its own rules.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use thiserror::Error;

use super::read::{Contents, MAX_FILES, MAX_TOTAL_BYTES};

/// First line: this, the version, seconds since 1970, SHA-256 of what follows.
const MAGIC: &str = "tramline-last-good";
const VERSION: &str = "1";
/// The manifests, and for each its name and two numbers.
const MAX_BYTES: u64 = (MAX_TOTAL_BYTES + MAX_FILES * 300 + 200) as u64;

/// How a file ends that is being written.
const DRAFT: &str = ".tmp";
/// Older drafts are nobody's: a disk is rarely that slow, and whose draft goes has an error and writes again.
const LONGEST_WRITE: Duration = Duration::from_secs(600);

/// Where one agent keeps them.
#[derive(Debug)]
pub struct LastGood {
    path: PathBuf,
}

/// What was kept, and when it was accepted.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) contents: Contents,
    pub(super) since: SystemTime,
}

/// Why nothing can be had from it.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    #[error("there is none")]
    Missing,
    #[error("{path} cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is damaged ({what}); it is not used, remove it")]
    Damaged { path: PathBuf, what: &'static str },
    #[error("{path} is of version {version}, this agent reads {VERSION}; it is not used")]
    OtherVersion { path: PathBuf, version: String },
    /// Agents used to take an empty directory.
    #[error("{path} holds no manifest; it is not used")]
    Empty { path: PathBuf },
}

impl LastGood {
    /// Of the agent of this name; several may share a state directory.
    pub fn new(state_dir: &Path, instance: &str) -> Self {
        Self {
            path: state_dir.join(format!("last-good-{instance}")),
        }
    }

    /// Puts new manifests in the place of the old ones: either are there at any moment, whole.
    pub(super) fn keep(&self, contents: &Contents) -> io::Result<()> {
        let mut body = Vec::new();
        for (name, bytes) in contents.files() {
            writeln!(body, "{} {}", name.len(), bytes.len())?;
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(bytes);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let head = format!("{MAGIC} {VERSION} {} {}\n", now.as_secs(), checksum(now, &body));
        self.forget_drafts();
        // Of this process alone: during an upgrade two agents of one name run.
        let mut draft = self.path.clone();
        draft
            .as_mut_os_string()
            .push(format!(".{}{DRAFT}", std::process::id()));
        let written = write(&draft, head.as_bytes(), &body).and_then(|()| fs::rename(&draft, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written?;
        // The name has to reach the disk too.
        match self.path.parent() {
            Some(dir) => File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Removes what agents of this name were writing when they were killed.
    fn forget_drafts(&self) {
        let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let (Some(dir), Some(own)) = (self.path.parent(), name(&self.path)) else {
            return;
        };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_draft = name(&path).is_some_and(|name| {
                let number = name.strip_prefix(&own).and_then(|rest| rest.strip_suffix(DRAFT));
                let number = number.and_then(|rest| rest.strip_prefix('.'));
                number.is_some_and(|number| number.parse::<u32>().is_ok())
            });
            let age = entry.metadata().and_then(|it| it.modified()).ok();
            let is_old = age.is_some_and(|at| at.elapsed().is_ok_and(|age| age > LONGEST_WRITE));
            if is_draft && is_old {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// What was kept last.
    pub(super) fn load(&self) -> Result<Kept, Unusable> {
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
            Err(source) => {
                let path = self.path.clone();
                return Err(Unusable::Unreadable { path, source });
            }
        };
        let damaged = |what| Unusable::Damaged {
            path: self.path.clone(),
            what,
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(damaged("longer than it can be"));
        }
        let (head, body) = line(&bytes).ok_or_else(|| damaged("no first line"))?;
        let fields: Vec<&str> = head.split(' ').collect();
        let [MAGIC, version, seconds, sum] = fields.as_slice() else {
            return Err(damaged("its first line is another file's"));
        };
        if *version != VERSION {
            return Err(Unusable::OtherVersion {
                path: self.path.clone(),
                version: (*version).to_owned(),
            });
        }
        let since = Duration::from_secs(seconds.parse().map_err(|_| damaged("no time"))?);
        if *sum != checksum(since, body) {
            return Err(damaged("its checksum is another"));
        }
        let contents = unpack(body).ok_or_else(|| damaged("its files do not add up"))?;
        if contents.is_empty() {
            let path = self.path.clone();
            return Err(Unusable::Empty { path });
        }
        let since = UNIX_EPOCH.checked_add(since).ok_or_else(|| damaged("no time"))?;
        Ok(Kept { contents, since })
    }
}

fn checksum(since: Duration, body: &[u8]) -> String {
    let mut covered = since.as_secs().to_be_bytes().to_vec();
    covered.extend_from_slice(body);
    digest(&SHA256, &covered)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn write(path: &Path, head: &[u8], body: &[u8]) -> io::Result<()> {
    // One that a crash left behind may be anybody's.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(head)?;
    file.write_all(body)?;
    file.sync_all()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(200).position(|byte| *byte == b'\n')?;
    Some((
        std::str::from_utf8(bytes.get(..end)?).ok()?,
        bytes.get(end + 1..)?,
    ))
}

fn unpack(mut rest: &[u8]) -> Option<Contents> {
    let mut files = Vec::new();
    while !rest.is_empty() {
        let (lengths, after) = line(rest)?;
        let (name, bytes) = lengths.split_once(' ')?;
        let (name, after) = after.split_at_checked(name.parse().ok()?)?;
        let (bytes, after) = after.split_at_checked(bytes.parse().ok()?)?;
        files.push((std::str::from_utf8(name).ok()?.to_owned(), bytes.to_vec()));
        rest = after;
    }
    Some(Contents::new(files))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn contents() -> Contents {
        Contents::new(vec![
            ("a.yaml".into(), b"a: 1\n".to_vec()),
            ("b\n.json".into(), Vec::new()),
            ("c.yaml".into(), b"\n\n12 4\n".to_vec()),
        ])
    }

    #[test]
    fn what_is_kept_is_found_again_and_nobody_else_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path(), "default");
        assert!(matches!(kept.load(), Err(Unusable::Missing)));
        kept.keep(&contents()).unwrap();
        kept.keep(&contents()).unwrap();
        assert_eq!(kept.load().unwrap().contents, contents());
        assert!(kept.load().unwrap().since.elapsed().unwrap() < Duration::from_secs(60));
        assert_eq!(kept.path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        assert!(matches!(
            LastGood::new(dir.path(), "other").load(),
            Err(Unusable::Missing)
        ));
    }

    #[test]
    fn what_a_killed_agent_was_writing_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path(), "a.b");
        let (old, others) = (
            ["last-good-a.b.77.tmp"],
            [
                "last-good-a.77.tmp",
                "last-good-a.b.x.tmp",
                "last-good-a.b.77",
                "last-good-a.b.c.77.tmp",
            ],
        );
        let long_ago = SystemTime::now() - LONGEST_WRITE * 2;
        for name in old.iter().chain(&others) {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(long_ago).unwrap();
        }
        File::create(dir.path().join("last-good-a.b.78.tmp")).unwrap();
        kept.keep(&contents()).unwrap();
        assert!(!dir.path().join(old[0]).exists());
        for name in others.iter().chain(&["last-good-a.b.78.tmp", "last-good-a.b"]) {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn a_byte_that_is_missing_or_other_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path(), "default");
        kept.keep(&contents()).unwrap();
        let good = fs::read(&kept.path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            fs::write(&kept.path, bad).unwrap();
            assert!(kept.load().is_err(), "byte {index} changed");
            fs::write(&kept.path, &good[..index]).unwrap();
            assert!(kept.load().is_err(), "cut after {index}");
        }
        let later = String::from_utf8(good).unwrap().replacen(" 1 ", " 2 ", 1);
        fs::write(&kept.path, later).unwrap();
        let error = kept.load().unwrap_err().to_string();
        assert!(error.contains("is of version 2, this agent reads 1"), "{error}");
    }

    #[test]
    fn nothing_is_not_a_configuration_to_come_back_to() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path(), "default");
        kept.keep(&Contents::new(Vec::new())).unwrap();
        assert!(matches!(kept.load(), Err(Unusable::Empty { .. })));
        kept.keep(&Contents::new(vec![("none.yaml".into(), Vec::new())]))
            .unwrap();
        assert_eq!(kept.load().unwrap().contents.files().count(), 1);
    }

    #[test]
    fn a_link_a_pipe_and_a_sparse_giant_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let kept = LastGood::new(dir.path(), "default");
        std::os::unix::fs::symlink("/etc/passwd", &kept.path).unwrap();
        assert!(matches!(kept.load(), Err(Unusable::Unreadable { .. })));
        fs::remove_file(&kept.path).unwrap();
        nix::unistd::mkfifo(&kept.path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(kept.load().is_err());
        fs::remove_file(&kept.path).unwrap();
        File::create(&kept.path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert!(matches!(kept.load(), Err(Unusable::Damaged { .. })));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error() {
        let kept = LastGood::new(Path::new("/nowhere/at/all"), "default");
        assert!(kept.keep(&contents()).is_err());
    }
}
