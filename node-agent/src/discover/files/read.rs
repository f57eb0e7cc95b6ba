//! Reading a directory: bounded, in order, and as one state where the writer makes that possible.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::manifest::{self, Format, MAX_FILE_BYTES};
use super::super::{ConfigError, ConfigErrors};

pub(super) const MAX_TOTAL_BYTES: usize = 64 << 20;
pub(super) const MAX_FILES: usize = 4096;
/// What else may lie in the directory before looking is given up.
const MAX_ENTRIES: usize = 65_536;
/// The link that kubelet swaps when it projects a ConfigMap: everything beside it points through it.
const PROJECTION: &str = "..data";
const PROJECTION_TRIES: usize = 5;
/// What is said of a directory that says nothing.
const NO_MANIFEST: &str = "holds no manifest (*.yaml, *.yml, *.json); to have nothing in the mesh on purpose, put a \
                           manifest there that has no object, such as an empty file none.yaml";

/// The files of a directory, sorted by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents(Vec<(String, Vec<u8>)>);

impl Contents {
    /// Files by their names.
    pub(super) fn new(mut files: Vec<(String, Vec<u8>)>) -> Self {
        files.sort();
        Self(files)
    }

    /// Whether there is no file at all, which no directory that is taken can be.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The bytes of a file, and how it is written.
    pub(super) fn get(&self, name: &str) -> Option<(&[u8], Format)> {
        let index = self
            .0
            .binary_search_by(|(other, _)| other.as_str().cmp(name))
            .ok()?;
        Some((self.0.get(index)?.1.as_slice(), Format::of(name)?))
    }
}

/// Reads every manifest of a directory; one without any is an error.
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
    let of_all = |what: String| ConfigErrors::from(ConfigError::at(dir.display().to_string(), what));
    let mut names = Vec::new();
    for (count, entry) in fs::read_dir(dir)
        .map_err(|error| cannot(dir, &error))?
        .enumerate()
    {
        let name = entry.map_err(|error| cannot(dir, &error))?.file_name();
        if count >= MAX_ENTRIES {
            return Err(of_all(format!("holds more than {MAX_ENTRIES} entries")));
        }
        if let Some(name) = name
            .to_str()
            .filter(|name| !name.starts_with('.') && Format::of(name).is_some())
        {
            names.push(name.to_owned());
        }
    }
    if names.len() > MAX_FILES {
        return Err(of_all(format!("holds more than {MAX_FILES} manifests")));
    }
    let (mut files, mut total, mut wrong) = (Vec::with_capacity(names.len()), 0, Vec::new());
    for name in names {
        let path = dir.join(&name);
        match file(&path) {
            Ok(bytes) => {
                total += bytes.len();
                if total > MAX_TOTAL_BYTES {
                    return Err(of_all(format!(
                        "holds more than {} MiB of manifests",
                        MAX_TOTAL_BYTES >> 20
                    )));
                }
                files.push((name, bytes));
            }
            // Removed between listing and reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {}
            Err(error) => wrong.push(ConfigError::at(name, unreadable(&error))),
        }
    }
    if !wrong.is_empty() {
        return Err(ConfigErrors::new(wrong));
    }
    // A volume that is not filled yet, or was emptied for a moment, looks like this. Taken for a mesh without anything in
    // it, every pod would be released and every policy dropped.
    if files.is_empty() {
        return Err(of_all(NO_MANIFEST.to_owned()));
    }
    Ok(Contents::new(files))
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        // Said by `file`.
        io::ErrorKind::InvalidInput => error.to_string(),
        io::ErrorKind::NotFound => "is a link to a file that is not there".into(),
        _ if error.raw_os_error() == Some(libc::ELOOP) => "is a link that leads to itself".into(),
        _ => format!("cannot be read: {error}"),
    }
}

/// The bytes of a regular file, unless it is too long.
fn file(path: &Path) -> io::Result<Vec<u8>> {
    let refuse = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    // Opening a named pipe would wait for its writer.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "is a directory"
        } else {
            "is a pipe or device"
        };
        return refuse(format!(
            "{what}, not a file; move it away or give it another name"
        ));
    }
    // Looked at before reading: a sparse file of any length costs nobody anything.
    if metadata.len() > MAX_FILE_BYTES as u64 {
        return refuse(manifest::too_long());
    }
    let mut bytes = Vec::new();
    // One more than allowed, for a file that grows meanwhile: the parser says it is too long.
    file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
