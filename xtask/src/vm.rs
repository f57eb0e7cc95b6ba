//! Other kernels: Debian's 6.1 and 6.12 cloud kernels, the lines that EKS runs, booted by qemu with an image that holds
//! nothing but the tests.

mod image;
mod kernel;
mod modules;
mod qemu;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::artifacts::Artifacts;
use crate::build_ebpf::Object;
use crate::process;
use crate::report;
use crate::test::counts::Counts;
use crate::vm::image::Image;
use crate::vm::kernel::Kernel;
use crate::workspace::Workspace;

/// The lines of kernels that are tried; the newest of each that the package lists have.
const LINES: [&str; 2] = ["6.1", "6.12"];

/// Modules that the tests use, where they are not built in.
const MODULES: [&str; 8] = [
    "veth",
    "bridge",
    "tls",
    "inet_diag",
    "tcp_diag",
    "af_packet",
    "sch_tbf",
    "sch_netem",
];

/// The end-to-end tests that run on the other kernels too: capture, verdicts, restarts of the agent, and tunnels over a bad link,
/// for which not every kernel has what it takes. The whole suite takes too long there.
const E2E: [&str; 6] = [
    "same_node",
    "cross_node",
    "kernel_path",
    "kernel_services_outside",
    "restart_under_load",
    "bad_link",
];

/// Names of test programs, with commas between them, to run no others.
const ONLY: &str = "TRAMLINE_VM_TESTS";

/// The kernel tests that do not: it loads hundreds of programs, and what it asks of a kernel `layouts` asks too.
const NOT_HERE: [&str; 1] = ["crash_points"];

/// Tries every line; a line that this system's packages do not have is skipped, and said so.
pub(crate) fn run(workspace: &Workspace) -> Result<Counts> {
    let mut counts = Counts::default();
    let lists = cfg!(target_arch = "x86_64") && process::exists("apt-get") && process::exists("dpkg");
    if !lists {
        report::step("SKIPPED: other kernels, because they come from Debian's packages for x86-64");
        counts.skipped += LINES.len() as u64;
        return Ok(counts);
    }
    let payload = Payload::build(workspace)?;
    let mut guests = Vec::new();
    for line in LINES {
        match Kernel::newest(line)? {
            Some(kernel) => {
                let image = payload.image(&kernel, &workspace.target.join("vm"))?;
                guests.push(Guest { line, kernel, image });
            }
            None => {
                report::step(format!(
                    "SKIPPED: Linux {line}, because these package lists do not have it"
                ));
                counts.skipped += 1;
            }
        }
    }
    // At a time: each takes one processor (see `qemu`).
    std::thread::scope(|scope| {
        let tests = payload.tests.len();
        let booted: Vec<_> = guests
            .iter()
            .map(|guest| scope.spawn(move || guest.boot(tests)))
            .collect();
        for guest in booted {
            counts += guest.join().unwrap_or_else(|_| bail!("a boot panicked"))?;
        }
        Ok(counts)
    })
}

/// A kernel and the image that it is to try.
struct Guest {
    line: &'static str,
    kernel: Kernel,
    image: PathBuf,
}

impl Guest {
    fn boot(&self, tests: usize) -> Result<Counts> {
        let Kernel { package, version, .. } = &self.kernel;
        report::step(format!("booting {package} {version} ({tests} tests)"));
        qemu::boot(
            &format!("{:<4} | ", self.line),
            &self.kernel.vmlinuz()?,
            &self.image,
        )
    }
}

/// What goes into the image besides the kernel's modules.
struct Payload {
    init: PathBuf,
    /// The debug and the release object.
    objects: [PathBuf; 2],
    binaries: Vec<PathBuf>,
    tests: Vec<(String, PathBuf)>,
}

impl Payload {
    fn build(workspace: &Workspace) -> Result<Self> {
        let binaries = Artifacts::binaries(workspace)?;
        let tests = Artifacts::tests(workspace)?;
        let of_kernel = tests
            .iter()
            .filter(|test| test.directory == "tests/kernel" && !NOT_HERE.contains(&test.name.as_str()));
        let of_e2e = tests
            .iter()
            .filter(|test| test.directory == "tests/e2e" && E2E.contains(&test.name.as_str()));
        let only = env::var(ONLY).ok();
        let is_wanted = |name: &str| {
            only.as_ref()
                .is_none_or(|only| only.split(',').any(|wanted| wanted == name))
        };
        Ok(Self {
            init: binaries
                .get("tramline-vm-guest")
                .context("the workspace has no tramline-vm-guest")?
                .clone(),
            objects: [Object::Debug, Object::Release].map(|object| workspace.ebpf_object(object)),
            binaries: ["tramline", "tramline-testapp"]
                .iter()
                .filter_map(|name| binaries.get(*name).cloned())
                .collect(),
            tests: of_kernel
                .chain(of_e2e)
                .filter(|test| is_wanted(&test.name))
                .map(|test| (test.name.clone(), test.executable.clone()))
                .collect(),
        })
    }

    /// Writes the image for a kernel, and says where it is.
    fn image(&self, kernel: &Kernel, scratch: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(scratch)?;
        let mut image = Image::default();
        image.program(&self.init, "/init")?;
        for tool in ["ip", "tc", "tcpdump"] {
            let found = process::find(tool).with_context(|| format!("`{tool}` is not here"))?;
            image.program(&found, &format!("/usr/bin/{tool}"))?;
        }
        // tcpdump asks who root is.
        image.bytes(b"root:x:0:0:root:/:/bin/false\n".to_vec(), "/etc/passwd", 0o644)?;
        for (object, name) in self.objects.iter().zip(["debug", "release"]) {
            image.file(object, &format!("/guest/{name}.o"), 0o644)?;
        }
        for binary in &self.binaries {
            let name = binary
                .file_name()
                .context("a program without a name")?
                .to_string_lossy();
            image.program(binary, &format!("/guest/{name}"))?;
        }
        image.directory("/guest/tests")?;
        for (name, executable) in &self.tests {
            image.program(executable, &format!("/guest/tests/{name}"))?;
        }
        image.directory("/guest/modules")?;
        for (position, (name, bytes)) in modules::with_what_they_need(kernel, &MODULES)?
            .into_iter()
            .enumerate()
        {
            image.bytes(bytes, &format!("/guest/modules/{position:02}-{name}.ko"), 0o644)?;
        }
        let path = scratch.join(format!("{}.cpio", kernel.package));
        image.write(&path)?;
        Ok(path)
    }
}
