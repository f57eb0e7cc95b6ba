//! The authority's directory: only its owner may read the key or change anything, and a file is either whole or not
//! there.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::CaError;

/// Root and key have less than 1 KiB each.
const MAX_FILE: u64 = 64 * 1024;
/// Making a root takes milliseconds.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Who may read a file.
#[derive(Clone, Copy)]
pub(super) enum Secrecy {
    /// Its owner.
    Private,
    /// Everybody; only its owner may write.
    Public,
}

impl Secrecy {
    /// The mode of a new file, and what others must not have of an existing one.
    const fn modes(self) -> (u32, u32) {
        match self {
            Self::Private => (0o600, 0o077),
            Self::Public => (0o644, 0o022),
        }
    }
}

/// `<state_dir>/ca`.
pub(super) struct Files {
    dir: PathBuf,
}

impl Files {
    /// Makes the directory, or checks the one that is there.
    pub(super) fn open(state_dir: &Path) -> Result<Self, CaError> {
        let dir = state_dir.join("ca");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| file_error("create", &dir, source))?;
        let metadata = fs::symlink_metadata(&dir).map_err(|source| file_error("inspect", &dir, source))?;
        if !metadata.is_dir() {
            return Err(CaError::FileType {
                path: dir,
                expected: "directory",
            });
        }
        // Whoever may write here may put another root in place.
        check_access(&dir, &metadata, 0o022, 0o700)?;
        Ok(Self { dir })
    }

    /// The root certificate.
    pub(super) fn root(&self) -> PathBuf {
        self.dir.join("root.pem")
    }

    /// Its private key.
    pub(super) fn key(&self) -> PathBuf {
        self.dir.join("root-key.pem")
    }

    /// Held while a root is made. Waits, but not for ever; the kernel gives it back when the process ends.
    pub(super) fn lock(&self) -> Result<File, CaError> {
        let path = self.dir.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|source| file_error("open", &path, source))?;
        let give_up = Instant::now() + LOCK_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => return Err(CaError::Locked(path)),
                Err(TryLockError::Error(source)) => return Err(file_error("lock", &path, source)),
            }
        }
    }

    /// The content of a file, `None` if there is no such file.
    pub(super) fn read(&self, path: &Path, secrecy: Secrecy) -> Result<Option<Zeroizing<Vec<u8>>>, CaError> {
        let opened = OpenOptions::new()
            .read(true)
            // A link could lead to a file that others control, and opening a pipe could wait for ever.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let not_a_file = || CaError::FileType {
            path: path.into(),
            expected: "regular file",
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(not_a_file()),
            Err(source) => return Err(file_error("open", path, source)),
        };
        // Of the open file, which cannot be exchanged any more.
        let metadata = file
            .metadata()
            .map_err(|source| file_error("inspect", path, source))?;
        if !metadata.is_file() {
            return Err(not_a_file());
        }
        let (wanted, forbidden) = secrecy.modes();
        check_access(path, &metadata, forbidden, wanted)?;
        // Room for everything at once: growing would leave copies of the key behind.
        let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 32));
        file.take(MAX_FILE + 1)
            .read_to_end(&mut content)
            .map_err(|source| file_error("read", path, source))?;
        if content.len() as u64 > MAX_FILE {
            return Err(CaError::Content {
                path: path.into(),
                what: "too long",
            });
        }
        Ok(Some(content))
    }

    /// Puts a new file in place, whole and on disk when this returns. Needs the lock.
    pub(super) fn write(&self, path: &Path, content: &[u8], secrecy: Secrecy) -> Result<(), CaError> {
        let temporary = path.with_extension("new");
        // What a process that was killed may have left.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file_error("remove", &temporary, error));
            }
            _ => {}
        }
        let (mode, _) = secrecy.modes();
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(|source| file_error("write", &temporary, source))?;
        fs::rename(&temporary, path).map_err(|source| file_error("rename to", path, source))?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| file_error("sync", &self.dir, source))
    }
}

fn check_access(path: &Path, metadata: &Metadata, forbidden: u32, wanted: u32) -> Result<(), CaError> {
    let (owner, agent) = (metadata.uid(), nix::unistd::geteuid().as_raw());
    if owner != agent {
        return Err(CaError::Owner {
            path: path.into(),
            owner,
            agent,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(CaError::Mode {
            path: path.into(),
            mode,
            access: if mode & 0o022 == 0 { "read" } else { "change" },
            wanted,
        });
    }
    Ok(())
}

pub(super) fn file_error(action: &'static str, path: &Path, source: io::Error) -> CaError {
    CaError::File {
        action,
        path: path.into(),
        source,
    }
}
