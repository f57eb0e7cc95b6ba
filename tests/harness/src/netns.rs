//! Network namespaces with a name, by iproute2.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

/// Where iproute2 keeps named namespaces.
pub const DIR: &str = "/run/netns";

/// A named network namespace. Dropping this value does not remove it: [`delete`] does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Netns {
    name: String,
    path: PathBuf,
}

impl Netns {
    /// Makes the namespace `name`, its loopback up, duplicate address detection off.
    ///
    /// # Errors
    /// `ip` is missing or refuses (not root, name taken).
    pub fn create(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let netns = Self {
            name: name.to_owned(),
            path: Path::new(DIR).join(name),
        };
        for scope in ["all", "default"] {
            // A pod's IPv6 address must be usable at once; nobody else is on these links.
            netns.sysctl(&format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
            netns.sysctl(&format!("net/ipv6/conf/{scope}/dad_transmits"), "0")?;
        }
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The name, as in `ip netns exec NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds the namespace.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs lines of `ip -batch` inside.
    ///
    /// # Errors
    /// `ip` refuses a line; the message holds its words.
    pub fn ip(&self, script: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start `ip` (package iproute2)")?;
        child
            .stdin
            .take()
            .context("no stdin for ip")?
            .write_all(script.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "ip in {}: {}\n{script}",
                self.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Adds a ruleset of nftables inside.
    ///
    /// # Errors
    /// `nft` is missing or refuses it; the message holds its words.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        let mut child = self
            .enter(|| {
                Command::new("nft")
                    .args(["-f", "-"])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn()
            })?
            .context("start `nft` (package nftables)")?;
        child
            .stdin
            .take()
            .context("no stdin for nft")?
            .write_all(ruleset.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!(
                "nft in {}: {}\n{ruleset}",
                self.name,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Sets `/proc/sys/<key>` as seen from inside (the kernel resolves `/proc/sys/net` by the writing task).
    ///
    /// # Errors
    /// The key does not exist in a namespace of this kernel, or is read-only.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/{key}"), value))?
            .with_context(|| format!("set {key}={value} in {}", self.name))
    }

    /// Runs `work` on a thread of its own that is inside. A process started by it stays inside.
    ///
    /// # Errors
    /// The namespace is gone, or entering is refused (not root).
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = File::open(&self.path).with_context(|| format!("open namespace {}", self.name))?;
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(&file, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("the thread inside {} panicked", self.name))?
        })
    }

    /// Opens a TCP connection from inside; the stream works from anywhere afterwards.
    ///
    /// # Errors
    /// The connection is refused or is not there within `limit`.
    pub fn connect(&self, address: std::net::SocketAddr, limit: std::time::Duration) -> Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&address, limit))?
            .with_context(|| format!("connect to {address} from {}", self.name))
    }
}

/// Removes the namespace `name` with all its links. Gone already is a success.
///
/// # Errors
/// `ip` refuses.
pub fn delete(name: &str) -> Result<()> {
    if !Path::new(DIR).join(name).exists() {
        return Ok(());
    }
    ip(&["netns", "del", name])
}

/// The names of all namespaces that start with `prefix`.
///
/// # Errors
/// The directory of namespaces is unreadable.
pub fn names(prefix: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(DIR) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            found.push(name);
        }
    }
    Ok(found)
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(args)
        .output()
        .context("start `ip` (package iproute2)")?;
    if !output.status.success() {
        bail!(
            "ip {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
