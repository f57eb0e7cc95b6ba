//! What the agent and the kernel's maps take.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

const MIB: f64 = 1024.0 * 1024.0;

/// Resident memory of a process, in MiB.
pub(super) fn resident(pid: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let kib = field(&text, "VmRSS:").and_then(|value| value.strip_suffix(" kB"));
    let kib: f64 = kib.with_context(|| format!("no VmRSS in {file}"))?.parse()?;
    Ok(kib * 1024.0 / MIB)
}

/// Memory of all maps that a process has open, as the kernel accounts it, in MiB.
pub(super) fn maps(pid: u32) -> Result<f64> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut by_map = BTreeMap::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("read {directory}"))? {
        // A descriptor may close meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        if let (Some(id), Some(bytes)) = (field(&text, "map_id:"), field(&text, "memlock:")) {
            by_map.insert(id.to_owned(), bytes.parse::<f64>()?);
        }
    }
    if by_map.is_empty() {
        anyhow::bail!("process {pid} has no map open");
    }
    Ok(by_map.values().sum::<f64>() / MIB)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::{field, resident};

    #[test]
    fn fields_are_found() {
        let text = "pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t77\n";
        assert_eq!(field(text, "memlock:"), Some("4096"));
        assert_eq!(field(text, "map_id:"), Some("77"));
        assert_eq!(field(text, "frozen:"), None);
        assert!(resident(std::process::id()).is_ok_and(|mib| mib > 0.5));
    }
}
