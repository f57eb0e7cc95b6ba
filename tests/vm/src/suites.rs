//! The test programs that xtask chose for this kernel, one after another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::report::{self, Report};

/// One program's time; an emulated processor is some thirty times slower than a real one.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs every program in `directory`; none is a success.
pub(crate) fn run(report: &mut Report, directory: &Path) {
    let programs = match list(directory) {
        Ok(programs) => programs,
        Err(error) => {
            report.check("test programs of the image", Err(error));
            return;
        }
    };
    for program in programs {
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        report::comment(&format!("running {name}"));
        let start = Instant::now();
        report.check(&format!("test program {name}"), run_one(&program));
        report::comment(&format!("{name} took {} s", start.elapsed().as_secs()));
    }
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut programs = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    programs.sort();
    Ok(programs)
}

fn run_one(program: &Path) -> Result<()> {
    let mut child = Command::new(program)
        .args(["--test-threads=1"])
        .env("RUST_BACKTRACE", "0")
        // Of random meshes as many as an emulated processor does in its time.
        .env("TRAMLINE_MESHES", "12")
        // And of restarts under load.
        .env("TRAMLINE_RESTART_ROUNDS", "2")
        // For what takes longer there and is not what a test measures.
        .env("TRAMLINE_TEST_PATIENCE", "6")
        // Its module is in the image.
        .env("TRAMLINE_REQUIRE_NETEM", "1")
        .spawn()
        .with_context(|| format!("start {}", program.display()))?;
    let status = wait(&mut child)?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("not finished after {} s", LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
