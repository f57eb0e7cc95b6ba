//! Checks of the kernel, its sockets and the directories.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use nix::unistd::Uid;
use socket2::{Domain, Protocol, Socket, Type};

use super::Check;

/// The oldest kernel the eBPF programs are tried on.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// What the agent does with each (capability(7); numbers from linux/capability.h).
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (12, "CAP_NET_ADMIN", "marks, routes and transparent sockets"),
    (21, "CAP_SYS_ADMIN", "entering the pods' network namespaces"),
    (38, "CAP_PERFMON", "loading programs that read kernel memory"),
    (39, "CAP_BPF", "loading programs and making maps"),
];

pub(super) fn kernel() -> Check {
    let name = "kernel";
    let (oldest_major, oldest_minor) = OLDEST_KERNEL;
    let fix = format!("boot Linux {oldest_major}.{oldest_minor} or later");
    let release = match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => release.trim().to_owned(),
        Err(error) => {
            return Check::failed(
                name,
                format!("/proc/sys/kernel/osrelease: {error}"),
                "mount /proc",
            );
        }
    };
    match version(&release) {
        Some(version) if version >= OLDEST_KERNEL => Check::ok(name, release),
        Some(_) => Check::failed(
            name,
            format!("{release} is older than what the programs are tried on"),
            fix,
        ),
        None => Check::warning(name, format!("{release} is no version this program knows"), fix),
    }
}

/// Major and minor number of a kernel release such as `6.1.0-50-cloud-amd64`.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn capabilities() -> Check {
    let name = "capabilities";
    let fix = "run as root, or in a container with these capabilities added";
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) = effective_capabilities(&status) else {
        return Check::failed(name, "/proc/self/status has no CapEff", fix);
    };
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(bit, _, _)| effective & (1 << bit) == 0)
        .map(|(_, name, purpose)| format!("{name} ({purpose})"))
        .collect();
    if missing.is_empty() {
        return Check::ok(name, CAPABILITIES.map(|(_, name, _)| name).join(" "));
    }
    Check::failed(name, format!("missing: {}", missing.join(", ")), fix)
}

pub(super) fn effective_capabilities(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

pub(super) fn lockdown() -> Check {
    let name = "lockdown";
    match fs::read_to_string("/sys/kernel/security/lockdown") {
        Ok(modes) if modes.contains("[confidentiality]") => Check::failed(
            name,
            "confidentiality: the kernel refuses eBPF programs that read kernel memory",
            "boot with lockdown=integrity or without lockdown",
        ),
        Ok(modes) => Check::ok(name, modes.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Check::ok(name, "not in use"),
        Err(error) => Check::warning(
            name,
            format!("/sys/kernel/security/lockdown: {error}"),
            "run as root",
        ),
    }
}

pub(super) fn btf() -> Check {
    let name = "kernel BTF";
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(metadata) => Check::ok(
            name,
            format!("/sys/kernel/btf/vmlinux, {} KiB", metadata.len() / 1024),
        ),
        Err(error) => Check::warning(
            name,
            format!("/sys/kernel/btf/vmlinux: {error}; socket storage may be refused"),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

/// Tried by making a directory, which is what the agent pins into.
pub(super) fn bpffs(path: &Path) -> Check {
    let name = "BPF file system";
    let mount = format!("mount -t bpf bpf {}", path.display());
    match statfs(path) {
        Err(error) => return Check::failed(name, format!("{}: {error}", path.display()), mount),
        Ok(found) if found.filesystem_type() != BPF_FS_MAGIC => {
            return Check::failed(
                name,
                format!("{} is not a BPF file system", path.display()),
                mount,
            );
        }
        Ok(_) => {}
    }
    let probe = path.join(format!("tramline-doctor-{}", std::process::id()));
    match fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)) {
        Ok(()) => Check::ok(name, format!("{}, a directory can be made", path.display())),
        Err(error) => Check::failed(name, format!("{}: {error}", probe.display()), "run as root"),
    }
}

/// Tried in a thread of its own, which ends inside the new namespace.
pub(super) fn network_namespace() -> Check {
    let name = "network namespaces";
    let fix = "run as root, on a kernel with CONFIG_NET_NS=y";
    let attempt = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
    match attempt.join() {
        Ok(Ok(())) => Check::ok(name, "one was made"),
        Ok(Err(error)) => Check::failed(name, format!("unshare: {error}"), fix),
        Err(_) => Check::failed(name, "the probe ended badly", fix),
    }
}

/// An address of TEST-NET-1 (RFC 5737), which no machine has: only a transparent socket may bind it.
pub(super) fn transparent_ipv4() -> Check {
    let foreign = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0));
    transparent("IP_TRANSPARENT", Domain::IPV4, foreign, |socket| {
        socket.set_ip_transparent_v4(true)
    })
}

/// An address of the documentation prefix (RFC 3849).
pub(super) fn transparent_ipv6() -> Check {
    let foreign = SocketAddr::from((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 0));
    let check = transparent("IPV6_TRANSPARENT", Domain::IPV6, foreign, |socket| {
        socket.set_ip_transparent_v6(true)
    });
    // A node without IPv6 serves IPv4 pods all the same.
    match check.state {
        super::CheckState::Failed => Check {
            state: super::CheckState::Warning,
            ..check
        },
        _ => check,
    }
}

fn transparent(
    name: &'static str,
    domain: Domain,
    foreign: SocketAddr,
    enable: impl FnOnce(&Socket) -> io::Result<()>,
) -> Check {
    let attempt = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
        enable(&socket)?;
        socket.bind(&foreign.into())
    });
    match attempt {
        Ok(()) => Check::ok(name, format!("bound {}, an address of nobody", foreign.ip())),
        Err(error) => Check::failed(
            name,
            format!("binding {}: {error}", foreign.ip()),
            "run with CAP_NET_ADMIN",
        ),
    }
}

pub(super) fn socket_mark() -> Check {
    let name = "SO_MARK";
    /// Any value but zero; read back to see that it holds.
    const MARK: u32 = 0x7472;
    let attempt = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).and_then(|socket| {
        socket.set_mark(MARK)?;
        socket.mark()
    });
    match attempt {
        Ok(MARK) => Check::ok(name, "set and read back"),
        Ok(other) => Check::failed(
            name,
            format!("set {MARK:#x}, read {other:#x}"),
            "report this kernel",
        ),
        Err(error) => Check::failed(name, error.to_string(), "run with CAP_NET_ADMIN"),
    }
}

/// Both are per network namespace; that they are there at all is what the kernel decides.
pub(super) fn mark_sysctls() -> Check {
    let name = "mark sysctls";
    let missing: Vec<_> = ["tcp_fwmark_accept", "fwmark_reflect"]
        .into_iter()
        .filter(|sysctl| !Path::new("/proc/sys/net/ipv4").join(sysctl).exists())
        .collect();
    if missing.is_empty() {
        return Check::ok(name, "net.ipv4.tcp_fwmark_accept and fwmark_reflect are there");
    }
    Check::failed(
        name,
        format!("no net.ipv4.{}", missing.join(", net.ipv4.")),
        "mount /proc, or use another kernel",
    )
}

pub(super) fn mptcp() -> Check {
    let name = "MPTCP";
    match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) {
        Ok(_) => Check::ok(
            name,
            "a socket can be made: applications' MPTCP is captured as well",
        ),
        Err(error) => Check::ok(
            name,
            format!("not offered by this kernel ({error}); applications use TCP"),
        ),
    }
}

pub(super) fn fast_open() -> Check {
    let name = "TCP fast open";
    match fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen") {
        Ok(value) => Check::ok(name, format!("net.ipv4.tcp_fastopen = {}", value.trim())),
        Err(error) => Check::ok(name, format!("not offered by this kernel ({error})")),
    }
}

/// The CA's key lies here: others must not read it, nor swap it.
pub(super) fn state_directory(path: &Path) -> Check {
    let name = "state directory";
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return missing_state_directory(path),
        Err(error) => return Check::failed(name, format!("{}: {error}", path.display()), "run as root"),
        Ok(metadata) => metadata,
    };
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let found = format!("{}, mode {mode:04o}, owner {owner}", path.display());
    if !metadata.is_dir() {
        Check::failed(
            name,
            format!("{} is not a directory", path.display()),
            "give another --state-dir",
        )
    } else if owner != 0 && owner != Uid::effective().as_raw() {
        Check::failed(name, found, format!("chown root {}", path.display()))
    } else if mode & 0o077 != 0 {
        Check::failed(
            name,
            format!("{found}: open to others"),
            format!("chmod 0700 {}", path.display()),
        )
    } else {
        Check::ok(name, found)
    }
}

/// The agent makes it; the doctor sees whether that would work, beside the nearest directory there is.
fn missing_state_directory(path: &Path) -> Check {
    let name = "state directory";
    let Some(parent) = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir()) else {
        return Check::failed(
            name,
            format!("{} has no parent", path.display()),
            "give another --state-dir",
        );
    };
    let probe = parent.join(format!(".tramline-doctor-{}", std::process::id()));
    match DirBuilder::new()
        .mode(0o700)
        .create(&probe)
        .and_then(|()| fs::remove_dir(&probe))
    {
        Ok(()) => Check::ok(
            name,
            format!("{} does not exist yet and can be made", path.display()),
        ),
        Err(error) => Check::failed(
            name,
            format!("{}: cannot be made: {error}", path.display()),
            "run as root, or give another --state-dir",
        ),
    }
}
