//! The eBPF programs and maps: load, attach, replace, read, write.

mod adopt;
mod attached;
pub(crate) mod diagnostics;
pub(crate) mod events;
mod listening;
pub(crate) mod load;
pub(crate) mod loads;
pub(crate) mod maps;
pub(crate) mod object;
pub(crate) mod pins;
pub(crate) mod services;
pub(crate) mod verdicts;

use std::{io, path::PathBuf};

/// What can go wrong between the agent and the kernel's eBPF.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The agent was built without its eBPF object.
    #[error(
        "this build of tramline has no eBPF programs: run `cargo xtask build-ebpf`, then build the agent again"
    )]
    NoObject,
    /// aya could not read or create what the object describes.
    #[error("cannot load the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// The verifier or the kernel refused a program.
    #[error("the kernel refused program {program}: {source}")]
    Program {
        /// Name of the program.
        program: &'static str,
        /// The kernel's answer, with the verifier's log.
        #[source]
        source: aya::programs::ProgramError,
    },
    /// A program or map is not in the object: the object is of another version.
    #[error("the eBPF object has no {0}: build it again from the same sources as the agent")]
    Missing(&'static str),
    /// A program could not be attached.
    #[error("cannot attach {program} to {target}: {source}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// The cgroup or namespace.
        target: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// The kernel's answer.
        #[source]
        source: aya::maps::MapError,
    },
    /// A map could not be mapped into this process.
    #[error("cannot map {map} into memory: {source}")]
    Shared {
        /// Name of the map.
        map: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another agent of this name runs.
    #[error("another agent runs as instance {0:?}; stop it, or give this one its own --instance")]
    InUse(String),
    /// Programs of an agent of another contract are attached.
    #[error(
        "{path} holds what an agent of another contract attached (this one's is v{}): neither can take over from the other. Drain \
         the node, end that agent, remove {path} (its pods are captured no longer), then start this one",
        tramline_common::layout::CONTRACT_VERSION
    )]
    OtherContract {
        /// The directory of its pins.
        path: PathBuf,
    },
    /// A map that all versions share is not what this agent expects.
    #[error(
        "map {map} is not what every version of tramline has agreed on ({found}): the programs that are attached were built from \
         other sources. Drain the node, end that agent, remove its pins below --bpffs, then start this one"
    )]
    Contract {
        /// Name of the map.
        map: &'static str,
        /// What is there.
        found: String,
    },
    /// A map of the object is not what the agent was built for.
    #[error(
        "map {map} of the eBPF object is {found}, not {expected}: build it again from the same sources as the agent"
    )]
    Shape {
        /// Name of the map.
        map: &'static str,
        /// As the kernel has it.
        found: String,
        /// As the agent reads and writes it.
        expected: String,
    },
    /// What is attached cannot be looked at.
    #[error("cannot tell what is attached at {path}: {source}")]
    Inspect {
        /// The pin.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Pins live in a bpf filesystem only.
    #[error("{0} is not a bpf filesystem; mount one (mount -t bpf bpf /sys/fs/bpf) or name it with --bpffs")]
    NoBpffs(PathBuf),
    /// Programs attach to cgroup2 only.
    #[error("{0} is not a cgroup2 directory; see --cgroup-root and --kubelet-cgroup")]
    NoCgroup(PathBuf),
    /// The directory of the pins cannot be used.
    #[error("cannot use {path} for pins: {source}")]
    Pins {
        /// The directory or file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}
