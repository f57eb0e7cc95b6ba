//! Where lines go, as one stream of whole lines: a file that may be rotated, a FIFO, standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a path is looked at for a file that was put in the place of the open one.
const LOOK: Duration = Duration::from_secs(1);
/// Before the next try at a FIFO, or standard output that another process made non-blocking, which is full.
const FULL: Duration = Duration::from_millis(5);

/// An open destination.
pub(super) struct Output {
    to: Box<dyn Write + Send>,
    followed: Option<Followed>,
    /// The last write broke off inside a line.
    torn: bool,
}

/// A path and which file was found there.
struct Followed {
    path: PathBuf,
    file: (u64, u64),
    next_look: Instant,
    /// What failed last, so that it is told once.
    failed: Option<io::ErrorKind>,
}

impl Output {
    /// Something that is not followed.
    pub(super) fn of(to: Box<dyn Write + Send>) -> Self {
        Self {
            to,
            followed: None,
            torn: false,
        }
    }

    /// Standard output as it is: the standard library's own buffer would keep what a failed write left of a line.
    pub(super) fn stdout() -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::of(Box::new(File::from(stdout))))
    }

    /// Appends to the file at `path`, which is made with mode 0640.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let (file, id) = open(path)?;
        Ok(Self {
            to: Box::new(file),
            followed: Some(Followed {
                path: path.to_owned(),
                file: id,
                next_look: Instant::now() + LOOK,
                failed: None,
            }),
            torn: false,
        })
    }

    /// Goes over to the file that is at the path now, if that is another one; looks once a second, or when `asked`.
    /// One that cannot be opened leaves the open one in use.
    pub(super) fn follow(&mut self, asked: bool) {
        let Some(followed) = &mut self.followed else {
            return;
        };
        let now = Instant::now();
        if !asked && now < followed.next_look {
            return;
        }
        followed.next_look = now + LOOK;
        let here = std::fs::metadata(&followed.path).map(|found| (found.dev(), found.ino()));
        if here.is_ok_and(|here| here == followed.file) {
            return;
        }
        match open(&followed.path) {
            Ok((file, id)) => {
                self.to = Box::new(file);
                self.torn = false;
                followed.file = id;
                followed.failed = None;
                tracing::info!(path = %followed.path.display(), "access log goes on in a new file");
            }
            Err(error) => {
                if followed.failed != Some(error.kind()) {
                    tracing::warn!(path = %followed.path.display(), %error, "access log stays in the file it has");
                }
                followed.failed = Some(error.kind());
            }
        }
    }

    /// Writes whole lines and answers how many of them were written: all, or those before an error. After an error
    /// the rest of the line it broke off in is given up, and the next one begins anew.
    pub(super) fn write(&mut self, lines: &str) -> u64 {
        if self.torn {
            if self.write_all(b"\n") == 0 {
                return 0;
            }
            self.torn = false;
        }
        let bytes = lines.as_bytes();
        let written = bytes.get(..self.write_all(bytes)).unwrap_or_default();
        self.torn = written.last().is_some_and(|last| *last != b'\n');
        written.iter().filter(|byte| **byte == b'\n').count() as u64
    }

    /// How many bytes were written before an error.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.to.write(rest) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(FULL),
                Err(_) => break,
            }
        }
        written
    }
}

/// Without waiting for a reader: a FIFO that nobody reads is an error now, not an agent that does not start.
fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let found = file.metadata()?;
    Ok((file, (found.dev(), found.ino())))
}
