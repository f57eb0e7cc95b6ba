//! An initramfs in the `newc` cpio format (Linux: `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Kind bits of `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

#[derive(Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

/// Files by path; directories are made as files need them.
#[derive(Debug)]
pub(crate) struct Image {
    entries: BTreeMap<String, Entry>,
}

impl Default for Image {
    /// Holds `/dev/console`, through which the first process speaks.
    fn default() -> Self {
        let mut image = Self {
            entries: BTreeMap::new(),
        };
        image.entry("/dev/console", CHARACTER_DEVICE | 0o600, (5, 1), Vec::new());
        image
    }
}

impl Image {
    /// A program, without its debug information, and the shared libraries that it is linked with.
    pub(crate) fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let bytes = without_debug_information(from)?;
        self.bytes(bytes, to, 0o755)?;
        // ldd fails for a program that is linked statically, which then needs nothing.
        let libraries = process::output(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries_in(&libraries) {
            if !self.entries.contains_key(&name_of(library)) {
                self.file(Path::new(library), library, 0o755)?;
            }
        }
        Ok(())
    }

    pub(crate) fn file(&mut self, from: &Path, to: &str, permissions: u32) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.bytes(content, to, permissions)
    }

    pub(crate) fn bytes(&mut self, content: Vec<u8>, to: &str, permissions: u32) -> Result<()> {
        if u32::try_from(content.len()).is_err() {
            bail!("{to} is too large for an initramfs");
        }
        self.entry(to, REGULAR | permissions, (0, 0), content);
        Ok(())
    }

    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        if !path.starts_with('/') {
            bail!("{path} is not an absolute path");
        }
        self.entry(path, DIRECTORY | 0o755, (0, 0), Vec::new());
        Ok(())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = BufWriter::new(file);
        // In the order of their names a directory comes before what is in it.
        for (inode, (name, entry)) in self.entries.iter().enumerate() {
            write_entry(&mut out, inode + 1, name, entry)?;
        }
        write_entry(
            &mut out,
            0,
            "TRAILER!!!",
            &Entry {
                mode: 0,
                device: (0, 0),
                content: Vec::new(),
            },
        )?;
        out.flush()
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: Vec<u8>) {
        let name = name_of(path);
        for (end, _) in name.match_indices('/') {
            let parent = || Entry {
                mode: DIRECTORY | 0o755,
                device: (0, 0),
                content: Vec::new(),
            };
            self.entries.entry(name[..end].to_owned()).or_insert_with(parent);
        }
        self.entries.insert(
            name,
            Entry {
                mode,
                device,
                content,
            },
        );
    }
}

/// The archive's names have no leading slash.
fn name_of(path: &str) -> String {
    path.trim_matches('/').to_owned()
}

fn write_entry(out: &mut impl Write, inode: usize, name: &str, entry: &Entry) -> Result<()> {
    let links = if entry.mode & DIRECTORY == 0 { 1 } else { 2 };
    let (major, minor) = entry.device;
    let header = format!(
        "070701{inode:08x}{mode:08x}{uid:08x}{gid:08x}{links:08x}{time:08x}{size:08x}{dev_major:08x}{dev_minor:08x}\
         {major:08x}{minor:08x}{name_size:08x}{check:08x}",
        mode = entry.mode,
        uid = 0,
        gid = 0,
        time = 0,
        size = entry.content.len(),
        dev_major = 0,
        dev_minor = 0,
        name_size = name.len() + 1,
        check = 0,
    );
    out.write_all(header.as_bytes())?;
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, header.len() + name.len() + 1)?;
    out.write_all(&entry.content)?;
    pad(out, entry.content.len())
}

/// Names and contents end at multiples of four bytes.
fn pad(out: &mut impl Write, written: usize) -> Result<()> {
    let missing = written.next_multiple_of(4) - written;
    Ok(out.write_all(&[0; 3][..missing])?)
}

fn without_debug_information(program: &Path) -> Result<Vec<u8>> {
    let stripped = Command::new("strip")
        .args(["--strip-debug", "-o", "/dev/stdout"])
        .arg(program)
        .output();
    match stripped {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => Ok(output.stdout),
        // Only larger and slower to unpack with it.
        _ => fs::read(program).with_context(|| format!("cannot read {}", program.display())),
    }
}

/// The paths in what ldd prints: `libc.so.6 => /lib/…/libc.so.6 (0x…)` and `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries_in(ldd: &str) -> Vec<&str> {
    ldd.lines()
        .filter_map(|line| {
            let path = line.rsplit("=> ").next()?.split_whitespace().next()?;
            path.starts_with('/').then_some(path)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd =
            "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/libc.so.6 (0x2)\n\t/lib64/ld-linux.so.2 (0x3)\n";
        assert_eq!(libraries_in(ldd), ["/lib/libc.so.6", "/lib64/ld-linux.so.2"]);
        assert!(libraries_in("\tstatically linked\n").is_empty());
    }

    #[test]
    fn entries_are_aligned_and_directories_come_first() {
        let mut image = Image::default();
        image.bytes(b"hello".to_vec(), "/a/b/file", 0o644).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        image.write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let position = |name: &str| text.find(name).unwrap();
        assert!(position("a\0") < position("a/b\0") && position("a/b\0") < position("a/b/file\0"));
        assert!(text.contains("dev/console\0") && text.contains("hello") && text.ends_with("\0"));
        assert_eq!(text.matches("070701").count(), 6);
    }
}
