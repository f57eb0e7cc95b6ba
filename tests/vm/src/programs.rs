//! Every program of the object through this kernel's verifier, and attached.
//!
//! Straight from the object file, not through the agent: a program that the agent does not use yet is tried too.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::{CgroupAttachMode, Program};

use crate::report::Report;

/// A cgroup of its own: the programs see no process.
const CGROUP: &str = "/sys/fs/cgroup/programs";

/// `build` names the object in the report.
pub(crate) fn load_and_attach(report: &mut Report, build: &str, object: &Path) {
    let opened = fs::create_dir_all(CGROUP)
        .context("make a cgroup")
        .and_then(|()| open(object));
    let mut ebpf = match opened {
        Ok(ebpf) => ebpf,
        Err(error) => {
            report.check(&format!("{build}: maps"), Err(error));
            return;
        }
    };
    report.check(&format!("{build}: maps"), Ok(()));
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    if names.is_empty() {
        report.check(
            &format!("{build}: programs"),
            Err(anyhow::anyhow!("the object has none")),
        );
    }
    for name in names {
        if let Some(program) = ebpf.program_mut(&name) {
            report.check(&format!("{build}: load {name}"), load(program));
            report.check(&format!("{build}: attach {name}"), attach(program));
        }
    }
}

fn open(object: &Path) -> Result<Ebpf> {
    let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
    Ok(Ebpf::load(&bytes)?)
}

fn load(program: &mut Program) -> Result<()> {
    match program {
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        Program::CgroupSockopt(program) => program.load()?,
        Program::SockOps(program) => program.load()?,
        Program::SkLookup(program) => program.load()?,
        Program::SkMsg(program) => program.load()?,
        other => bail!(
            "a program of type {:?}: teach tests/vm to load it",
            other.prog_type()
        ),
    }
    Ok(())
}

fn attach(program: &mut Program) -> Result<()> {
    let cgroup = File::open(CGROUP)?;
    match program {
        Program::CgroupSockAddr(program) => _ = program.attach(cgroup, CgroupAttachMode::Single)?,
        Program::CgroupSock(program) => _ = program.attach(cgroup, CgroupAttachMode::Single)?,
        Program::CgroupSockopt(program) => _ = program.attach(cgroup, CgroupAttachMode::Single)?,
        Program::SockOps(program) => _ = program.attach(cgroup, CgroupAttachMode::Single)?,
        Program::SkLookup(program) => _ = program.attach(File::open("/proc/self/ns/net")?)?,
        other => bail!(
            "a program of type {:?}: teach tests/vm to attach it",
            other.prog_type()
        ),
    }
    Ok(())
}
