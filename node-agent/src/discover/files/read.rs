//! Reading a directory: bounded, in order, and as one state where the writer makes that possible.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::manifest::{Format, MAX_FILE_BYTES};
use super::super::{ConfigError, ConfigErrors};

const MAX_TOTAL_BYTES: usize = 64 << 20;
const MAX_FILES: usize = 4096;
/// What else may lie in the directory before looking is given up.
const MAX_ENTRIES: usize = 65_536;
/// The link that kubelet swaps when it projects a ConfigMap: everything beside it points through it.
const PROJECTION: &str = "..data";
const PROJECTION_TRIES: usize = 5;

/// The files of a directory, sorted by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents(Vec<(String, Vec<u8>)>);

impl Contents {
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

/// Reads every manifest of a directory.
pub(super) fn directory(dir: &Path) -> Result<Contents, ConfigErrors> {
    for _ in 0..PROJECTION_TRIES {
        let before = projection(dir);
        let contents = read_all(dir);
        if projection(dir) == before {
            return contents;
        }
    }
    Err(ConfigError::at(
        dir.display().to_string(),
        "is being replaced faster than it can be read",
    )
    .into())
}

fn projection(dir: &Path) -> Option<PathBuf> {
    fs::read_link(dir.join(PROJECTION)).ok()
}

fn read_all(dir: &Path) -> Result<Contents, ConfigErrors> {
    let cannot = |path: &Path, error: &io::Error| {
        ConfigErrors::from(ConfigError::at(
            path.display().to_string(),
            format!("cannot be read: {error}"),
        ))
    };
    let too_much = |what: String| ConfigErrors::from(ConfigError::at(dir.display().to_string(), what));
    let mut names = Vec::new();
    for (count, entry) in fs::read_dir(dir)
        .map_err(|error| cannot(dir, &error))?
        .enumerate()
    {
        let name = entry.map_err(|error| cannot(dir, &error))?.file_name();
        if count >= MAX_ENTRIES {
            return Err(too_much(format!("holds more than {MAX_ENTRIES} entries")));
        }
        if let Some(name) = name
            .to_str()
            .filter(|name| !name.starts_with('.') && Format::of(name).is_some())
        {
            names.push(name.to_owned());
        }
    }
    if names.len() > MAX_FILES {
        return Err(too_much(format!("holds more than {MAX_FILES} manifests")));
    }
    names.sort();
    let (mut files, mut total) = (Vec::with_capacity(names.len()), 0);
    for name in names {
        let path = dir.join(&name);
        match file(&path) {
            Ok(Some(bytes)) => {
                total += bytes.len();
                if total > MAX_TOTAL_BYTES {
                    return Err(too_much(format!(
                        "holds more than {} MiB of manifests",
                        MAX_TOTAL_BYTES >> 20
                    )));
                }
                files.push((name, bytes));
            }
            Ok(None) => {}
            // Removed between listing and reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
            Err(error) => return Err(cannot(&path, &error)),
        }
    }
    Ok(Contents(files))
}

/// The bytes of a regular file, one more than allowed at most so that the parser says it is too long; `None` for
/// anything that is not a file.
fn file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Opening a named pipe would wait for its writer.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}
