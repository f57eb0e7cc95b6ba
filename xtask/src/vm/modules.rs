//! Kernel modules with the modules that they need, in the order in which they load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use crate::vm::kernel::Kernel;

/// Name and uncompressed content of these modules and what they need, dependencies first; without those that the kernel
/// has built in.
pub(crate) fn with_what_they_need(kernel: &Kernel, wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut builtin = String::new();
    collect(&kernel.modules(), &mut files, &mut builtin)?;
    let mut ordered = Vec::new();
    for name in wanted {
        add(name, &files, &builtin, &mut ordered)?;
    }
    Ok(ordered)
}

fn add(name: &str, files: &[PathBuf], builtin: &str, ordered: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    if ordered.iter().any(|(known, _)| known == name) || builtin.lines().any(|path| module_name(path) == name)
    {
        return Ok(());
    }
    let file = files
        .iter()
        .find(|path| module_name(&path.to_string_lossy()) == name)
        .with_context(|| format!("this kernel has no module {name}"))?;
    let bytes = content(file)?;
    for needed in needs(&bytes).with_context(|| format!("cannot read {}", file.display()))? {
        add(&needed, files, builtin, ordered)?;
    }
    ordered.push((name.to_owned(), bytes));
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>, builtin: &mut String) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, files, builtin)?;
        } else if path.file_name().is_some_and(|name| name == "modules.builtin") {
            builtin.push_str(&fs::read_to_string(&path)?);
        } else if path.to_string_lossy().contains(".ko") {
            files.push(path);
        }
    }
    Ok(())
}

/// `kernel/net/ipv4/inet_diag.ko.xz` is `inet_diag`; files use `-` where the kernel says `_`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn content(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(fs::read(file)?),
        Some("xz") => {
            let output = Command::new("xz")
                .args(["--decompress", "--stdout"])
                .arg(file)
                .output()
                .context("start xz")?;
            if !output.status.success() {
                bail!(
                    "cannot decompress {}: {}",
                    file.display(),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            Ok(output.stdout)
        }
        _ => bail!("cannot decompress {}", file.display()),
    }
}

/// The `depends=` of the module's own description.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module)?;
    let section = file.section_by_name(".modinfo").context("no .modinfo")?;
    Ok(needed_in(section.data()?))
}

fn needed_in(modinfo: &[u8]) -> Vec<String> {
    let depends = modinfo
        .split(|&byte| byte == 0)
        .find_map(|field| field.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(depends.unwrap_or_default()).replace('-', "_");
    names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(module_name("kernel/drivers/net/veth.ko.xz"), "veth");
        assert_eq!(module_name("kernel/net/802/p8022-x.ko"), "p8022_x");
    }

    #[test]
    fn what_a_module_needs_is_in_its_description() {
        assert_eq!(
            needed_in(b"license=GPL\0depends=stp,llc\0name=bridge\0"),
            ["stp", "llc"]
        );
        assert!(needed_in(b"depends=\0").is_empty());
        assert!(needed_in(b"license=GPL\0").is_empty());
    }
}
