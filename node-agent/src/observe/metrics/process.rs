//! The process metrics that every Prometheus client library has, read from `/proc/self`.

use std::fs;

/// USER_HZ: `/proc/PID/stat` counts in hundredths of a second on every architecture this agent supports (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;
/// VmRSS is given in KiB.
const KIB: f64 = 1024.0;

/// What `/proc/self` says; a value that cannot be read is absent.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) open_fds: Option<f64>,
    pub(super) max_fds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) threads: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self {
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|entries| entries.fold(0.0, |sum, _| sum + 1.0)),
            max_fds: field(&limits, "Max open files"),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * KIB),
            cpu_seconds: cpu_seconds(&stat),
            threads: field(&status, "Threads:"),
        }
    }
}

/// The first number after `name` at the start of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of proc_pid_stat(5), counted after the command name, which may itself hold spaces.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_every_value() {
        let process = Process::read();
        assert!(process.open_fds.unwrap() >= 3.0);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap());
        assert!(process.resident_bytes.unwrap() > 100_000.0);
        assert!(process.threads.unwrap() >= 1.0);
        assert!(process.cpu_seconds.unwrap() < 3600.0);
    }

    #[test]
    fn a_command_name_with_spaces_does_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
    }
}
