//! The first process of a virtual machine that `cargo xtask test vm` boots.
//!
//! It makes the kernel usable (filesystems, modules, loopback), loads and attaches every program of the eBPF objects, runs
//! the test programs that xtask put in the image, and stops the machine. The report is TAP lines on the console.

mod machine;
mod programs;
mod report;
mod suites;

use std::path::Path;
use std::process::ExitCode;

use crate::report::Report;

/// Where xtask puts things in the image.
const IMAGE: &str = "/guest";

fn main() -> ExitCode {
    if std::process::id() != 1 {
        report::comment("this runs as the first process of a virtual machine: use `cargo xtask test vm`");
        return ExitCode::FAILURE;
    }
    let mut report = Report::default();
    if report.check(
        "filesystems, modules and loopback",
        machine::prepare(&Path::new(IMAGE).join("modules")),
    ) {
        for build in ["debug", "release"] {
            programs::load_and_attach(&mut report, build, &Path::new(IMAGE).join(format!("{build}.o")));
        }
        suites::run(&mut report, &Path::new(IMAGE).join("tests"));
    }
    report.finish();
    machine::stop()
}
