//! `cargo xtask setup`, and the same for the commands that need it: finds what is missing and installs it.
//!
//! On Debian and its like everything is installed from the distribution's packages and published crates, as root. Elsewhere
//! what is missing is named together with the command that installs it.

pub(crate) mod apt;
mod manager;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;
use crate::report;
use crate::setup::apt::Apt;
use crate::setup::manager::{Manager, Names};
use crate::toolchain::{self, BPF_LINKER, Rustc};
use crate::workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Only what this needs; everything if it is not given
    #[arg(long = "for", value_enum, value_name = "PURPOSE")]
    purposes: Vec<Purpose>,
}

/// How a command that needs setup treats what is missing.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Install nothing: print what is missing and the command that installs it
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// What a command needs the machine to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Purpose {
    /// Compiling the eBPF programs.
    Ebpf,
    /// Building nodes and pods out of namespaces, and looking at the link.
    Network,
    /// Nodes that answer on NodePorts.
    NodePorts,
    /// Booting other kernels.
    Vm,
}

/// A program that must be there, and what each package manager calls its package.
struct Program {
    name: &'static str,
    packages: Names,
    why: &'static str,
}

const IP: Program = Program {
    name: "ip",
    packages: Names {
        apt: "iproute2",
        dnf: "iproute",
        pacman: "iproute2",
    },
    why: "namespaces and links for nodes and pods",
};
const TCPDUMP: Program = Program {
    name: "tcpdump",
    packages: Names {
        apt: "tcpdump",
        dnf: "tcpdump",
        pacman: "tcpdump",
    },
    why: "looking at the bytes on the link",
};
const NFT: Program = Program {
    name: "nft",
    packages: Names {
        apt: "nftables",
        dnf: "nftables",
        pacman: "nftables",
    },
    why: "a node that translates addresses, as for a NodePort",
};
const QEMU: Program = Program {
    name: "qemu-system-x86_64",
    packages: Names {
        apt: "qemu-system-x86",
        dnf: "qemu-system-x86-core",
        pacman: "qemu-system-x86",
    },
    why: "booting Linux 6.1 and 6.12",
};

const XZ: Program = Program {
    name: "xz",
    packages: Names {
        apt: "xz-utils",
        dnf: "xz",
        pacman: "xz",
    },
    why: "unpacking kernel modules",
};

impl Purpose {
    fn programs(self) -> &'static [Program] {
        match self {
            Self::Ebpf => &[],
            Self::Network => &[IP, TCPDUMP],
            Self::NodePorts => &[NFT],
            Self::Vm => &[IP, QEMU, XZ],
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let everything = [Purpose::Ebpf, Purpose::Network, Purpose::NodePorts, Purpose::Vm];
    ensure(
        if args.purposes.is_empty() {
            &everything
        } else {
            &args.purposes
        },
        args.options,
    )?;
    report::step("everything that is needed is there");
    Ok(())
}

/// Installs what is missing for these purposes, or says what it is.
pub(crate) fn ensure(purposes: &[Purpose], options: Options) -> Result<()> {
    let mut missing: Vec<&Program> = Vec::new();
    for program in purposes.iter().flat_map(|purpose| purpose.programs()) {
        if !process::exists(program.name) && !missing.iter().any(|known| known.name == program.name) {
            missing.push(program);
        }
    }
    let ebpf = purposes.contains(&Purpose::Ebpf) && crate::build_ebpf::ready().is_err();
    if missing.is_empty() && !ebpf {
        return Ok(());
    }
    let manager = Manager::detect();
    for program in &missing {
        report::step(format!("missing: `{}` ({})", program.name, program.why));
    }
    if ebpf {
        report::step(format!("missing: {}", missing_for_ebpf()?));
    }
    if options.no_install || manager != Some(Manager::Apt) {
        return by_hand(manager, &missing, ebpf);
    }
    let mut apt = Apt::default();
    let packages: Vec<String> = missing
        .iter()
        .map(|program| program.packages.apt.to_owned())
        .collect();
    apt.install(&packages)?;
    if ebpf {
        install_ebpf_toolchain(&mut apt)?;
    }
    Ok(())
}

/// Compiler with its source, then LLVM of that compiler's version, then bpf-linker on it; each only if it is missing.
fn install_ebpf_toolchain(apt: &mut Apt) -> Result<()> {
    if Rustc::candidates()?.is_empty() {
        let packages = apt::rust_packages(apt)?;
        apt.install(&packages)?;
    }
    let mut candidates = Rustc::candidates()?;
    // A compiler whose LLVM is not to be had is passed over; then Debian's, which comes with its LLVM.
    if let Some(rustc) = with_llvm(&candidates, apt)? {
        return install_linker(apt, &rustc);
    }
    let packages = apt::rust_packages(apt)?;
    apt.install(&packages)?;
    candidates = Rustc::candidates()?;
    match with_llvm(&candidates, apt)? {
        Some(rustc) => install_linker(apt, &rustc),
        None => {
            let known: Vec<_> = candidates
                .iter()
                .map(|rustc| format!("{} (LLVM {})", rustc.release, rustc.llvm))
                .collect();
            bail!(
                "no package `llvm-N-dev` matches any rustc that is here: {}",
                known.join(", ")
            )
        }
    }
}

fn with_llvm(candidates: &[Rustc], apt: &mut Apt) -> Result<Option<Rustc>> {
    for rustc in candidates {
        let package = format!("llvm-{}-dev", rustc.llvm);
        if toolchain::llvm_prefix(rustc.llvm).is_some() || apt.candidate(&package)?.is_some() {
            return Ok(Some(rustc.clone()));
        }
    }
    Ok(None)
}

fn install_linker(apt: &mut Apt, rustc: &Rustc) -> Result<()> {
    if toolchain::linker(rustc.llvm).is_some() {
        return Ok(());
    }
    apt.install(&apt::llvm_packages(rustc.llvm))?;
    let prefix = toolchain::llvm_prefix(rustc.llvm).with_context(|| {
        format!(
            "no LLVM {} with its headers, though its packages are installed",
            rustc.llvm
        )
    })?;
    let root = toolchain::linker_root(rustc.llvm);
    report::step(format!(
        "building bpf-linker {BPF_LINKER} into {} (a minute or two)",
        root.display()
    ));
    process::run(
        Command::new(workspace::cargo())
            .args(linker_arguments(rustc.llvm))
            .arg("--root")
            .arg(&root)
            .env("LLVM_PREFIX", prefix)
            // The linker's own build is no part of this workspace's.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTFLAGS")
            .current_dir("/"),
    )
}

fn linker_arguments(llvm: u32) -> [String; 7] {
    [
        "install".to_owned(),
        "bpf-linker".to_owned(),
        format!("--version={BPF_LINKER}"),
        "--locked".to_owned(),
        "--no-default-features".to_owned(),
        format!("--features=llvm-{llvm}"),
        "--quiet".to_owned(),
    ]
}

fn missing_for_ebpf() -> Result<String> {
    let candidates = Rustc::candidates()?;
    Ok(match candidates.first() {
        None => "a rustc with its library source, and bpf-linker on its LLVM (compiling the eBPF programs)"
            .to_owned(),
        Some(rustc) => {
            format!(
                "bpf-linker on LLVM {} for {} (linking the eBPF programs)",
                rustc.llvm,
                rustc.path.display()
            )
        }
    })
}

/// Prints the commands that install what is missing, and fails: the caller cannot go on.
fn by_hand(manager: Option<Manager>, missing: &[&Program], ebpf: bool) -> Result<()> {
    let mut packages: Vec<String> = missing
        .iter()
        .map(|program| {
            manager
                .map_or(program.packages.apt, |manager| program.packages.of(manager))
                .to_owned()
        })
        .collect();
    let llvm = Rustc::candidates()?.first().map(|rustc| rustc.llvm);
    if ebpf {
        packages.extend(match (manager, llvm) {
            (Some(Manager::Apt), Some(llvm)) => apt::llvm_packages(llvm),
            (Some(Manager::Apt), None) => apt::whole_ebpf_toolchain(),
            (Some(manager), _) => manager.ebpf_toolchain(),
            (None, _) => Vec::new(),
        });
    }
    report::result("To install what is missing, as root:");
    match manager {
        Some(manager) => {
            if !packages.is_empty() {
                report::result(format!("  {} {}", manager.install_command(), packages.join(" ")));
            }
        }
        None => report::result(format!(
            "  the programs {} with this system's package manager",
            missing
                .iter()
                .map(|program| program.name)
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
    if ebpf {
        if manager != Some(Manager::Apt) && llvm.is_none() {
            report::result(
                "  rustup component add rust-src    # where Rust came by rustup; as the user who builds",
            );
        }
        let (llvm, remark) = match llvm {
            Some(llvm) => (llvm.to_string(), "as the user who builds"),
            None => (
                "N".to_owned(),
                "N: the LLVM version in `rustc -vV`; as the user who builds",
            ),
        };
        report::result(format!(
            "  LLVM_PREFIX=$(llvm-config-{llvm} --prefix) cargo install bpf-linker --version={BPF_LINKER} --locked \
             --no-default-features --features=llvm-{llvm}    # {remark}"
        ));
    }
    bail!("something is missing (listed above)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_follows_the_llvm_of_the_compiler() {
        assert!(linker_arguments(23).contains(&"--features=llvm-23".to_owned()));
        assert_ne!(toolchain::linker_root(22), toolchain::linker_root(23));
    }

    #[test]
    fn what_is_there_needs_no_setup() {
        // `sh` is on every machine that runs this: a purpose without missing programs must not touch the system.
        assert!(ensure(&[], Options::default()).is_ok());
    }
}
