//! The inputs that mutations start from: `corpus/TARGET/`, one file each. An input that once broke a promise stays there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of all of them.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs of one target, by name of file.
///
/// # Errors
/// They cannot be read.
pub fn of(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(directory().join(target))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, fs::read(entry.path())?));
    }
    // The order of a directory is nobody's; that of the mutations has to be the same everywhere.
    inputs.sort();
    Ok(inputs)
}
