//! A kernel out of Debian's packages: found in the lists, downloaded, unpacked into the cache; nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::report;
use crate::setup::apt::Apt;
use crate::workspace;

/// An unpacked kernel package.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) package: String,
    pub(crate) version: String,
    root: PathBuf,
}

impl Kernel {
    /// The newest of a line (`6.12`) that the package lists have.
    pub(crate) fn newest(line: &str) -> Result<Option<Self>> {
        let mut apt = Apt::default();
        let package = match newest_of(&names()?, line) {
            Some(package) => package,
            None => {
                // A machine whose lists were never fetched.
                apt.refresh();
                let Some(package) = newest_of(&names()?, line) else {
                    return Ok(None);
                };
                package
            }
        };
        let version = match Apt::known_candidate(&package) {
            Some(version) => version,
            None => return Ok(None),
        };
        let kernel = Self {
            root: workspace::cache()
                .join("kernels")
                .join(format!("{package}_{version}")),
            package,
            version,
        };
        if !kernel.root.is_dir() {
            kernel.download(&mut apt)?;
        }
        Ok(Some(kernel))
    }

    /// The kernel itself.
    pub(crate) fn vmlinuz(&self) -> Result<PathBuf> {
        let boot = self.root.join("boot");
        for entry in fs::read_dir(&boot).with_context(|| format!("cannot read {}", boot.display()))? {
            let path = entry?.path();
            if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
            {
                return Ok(path);
            }
        }
        bail!("{} has no vmlinuz", self.package)
    }

    /// The directory of its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules")
    }

    fn download(&self, apt: &mut Apt) -> Result<()> {
        let mut scratch = self.root.clone();
        scratch.as_mut_os_string().push(".part");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
        report::step(format!("downloading {} {}", self.package, self.version));
        if process::run(&mut download_command(&self.package, &scratch)).is_err() {
            // Lists older than the archive name a version that is gone.
            apt.refresh();
            process::run(&mut download_command(&self.package, &scratch))?;
        }
        let archive = fs::read_dir(&scratch)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get downloaded nothing for {}", self.package))?;
        let unpacked = scratch.join("root");
        process::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&unpacked))?;
        fs::rename(&unpacked, &self.root).with_context(|| format!("cannot make {}", self.root.display()))?;
        fs::remove_dir_all(&scratch)?;
        Ok(())
    }
}

fn download_command(package: &str, directory: &Path) -> Command {
    let mut command = Command::new("apt-get");
    // As root apt would drop to a user who may not write here, and warn.
    command
        .args(["download", "--quiet", "-o", "APT::Sandbox::User=root", package])
        .current_dir(directory);
    command
}

fn names() -> Result<String> {
    process::output(Command::new("apt-cache").args(["pkgnames", "linux-image-6."]))
}

/// The signed cloud kernel with the highest number among package names.
fn newest_of(names: &str, line: &str) -> Option<String> {
    let prefix = format!("linux-image-{line}.");
    let of_line = names.split_whitespace().filter_map(|name| {
        let release = name.strip_prefix(&prefix)?.strip_suffix("-cloud-amd64")?;
        let numbers: Vec<u64> = release
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        Some((numbers, name.to_owned()))
    });
    of_line.max().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-56-cloud-amd64\n\
        linux-image-6.1.0-57-cloud-amd64-unsigned\nlinux-image-6.1.0-58-amd64\nlinux-image-6.12-cloud-amd64\n\
        linux-image-6.12.99+deb12-cloud-amd64\nlinux-image-6.12.117+deb12-cloud-amd64\n";

    #[test]
    fn the_highest_number_of_the_line_is_taken_and_only_signed_cloud_kernels() {
        assert_eq!(
            newest_of(NAMES, "6.1").as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(
            newest_of(NAMES, "6.12").as_deref(),
            Some("linux-image-6.12.117+deb12-cloud-amd64")
        );
        assert_eq!(newest_of(NAMES, "6.18"), None);
    }
}
