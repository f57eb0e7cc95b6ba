//! One boot: the console passed on and read, bounded in time.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::report;
use crate::test::counts::Counts;

/// Seconds for a whole boot with all its tests; `timeout` ends qemu then.
const LIMIT: u32 = 900;

/// Boots and counts what the guest reports; a guest that stops half-way counts as one failure. `tag` is put before each of
/// its lines.
pub(crate) fn boot(tag: &str, kernel: &Path, image: &Path) -> Result<Counts> {
    let mut console = Console::default();
    let mut qemu = Command::new("timeout");
    qemu.arg(format!("{LIMIT}"))
        .args([
            "qemu-system-x86_64",
            "-accel",
            &accelerator(),
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "4096",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        // No bootloader, no disk: the first process is in the image. A panic ends qemu at once.
        .args([
            "-append",
            "console=ttyS0 rdinit=/init panic=-1 quiet loglevel=3 random.trust_cpu=on",
        ]);
    let exited_well = process::watched_as(tag, &mut qemu, |line| console.see(line))?;
    if !exited_well {
        report::note(format!("{tag}qemu was ended after its time, or failed"));
    }
    Ok(console.counts(exited_well))
}

/// Emulation works everywhere; hardware acceleration often does not inside a virtual machine.
///
/// Both processors of the guest in one thread: with a thread each, qemu before 8.1 translates code while the other processor
/// writes it (QEMU commit deba78709ae8), and a kernel that switches one of its static keys then, as for each program that is
/// attached, dies of its own breakpoint (`Oops: int3`).
fn accelerator() -> String {
    env::var("TRAMLINE_VM_ACCEL").unwrap_or_else(|_| "tcg,thread=single".to_owned())
}

/// What the console has said so far.
#[derive(Debug, Default)]
struct Console {
    counts: Counts,
    planned: Option<u64>,
    reported: u64,
}

impl Console {
    fn see(&mut self, line: &str) {
        let line = line.trim();
        if line.starts_with("ok ") {
            self.reported += 1;
            // A test program's own tests are counted by its own closing line.
            self.counts.passed += u64::from(!line.contains("- test program "));
        } else if line.starts_with("not ok ") {
            self.reported += 1;
            self.counts.failed += 1;
        } else if let Some(plan) = line.strip_prefix("1..") {
            self.planned = plan.parse().ok();
        } else if let Some(counted) = Counts::in_line(line) {
            self.counts += counted;
        }
    }

    fn counts(&self, exited_well: bool) -> Counts {
        self.counts
            .with_exit(exited_well && self.planned == Some(self.reported) && self.reported > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(lines: &[&str]) -> Console {
        let mut console = Console::default();
        lines.iter().for_each(|line| console.see(line));
        console
    }

    #[test]
    fn results_and_closing_lines_count() {
        let console = seen(&[
            "[    0.0] Linux version",
            "ok 1 - filesystems\r",
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "ok 2 - test program capture",
            "1..2",
        ]);
        assert_eq!(
            console.counts(true),
            Counts {
                passed: 5,
                failed: 0,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_guest_that_stops_half_way_fails() {
        assert_eq!(seen(&["ok 1 - filesystems"]).counts(true).failed, 1);
        assert_eq!(seen(&["ok 1 - filesystems", "1..2"]).counts(true).failed, 1);
        assert_eq!(seen(&[]).counts(true).failed, 1);
        assert_eq!(seen(&["ok 1 - filesystems", "1..1"]).counts(false).failed, 1);
    }

    #[test]
    fn a_failure_counts() {
        assert_eq!(
            seen(&["ok 1 - a", "not ok 2 - b", "1..2"]).counts(true),
            Counts {
                passed: 1,
                failed: 1,
                skipped: 0
            }
        );
    }
}
