//! What really crossed a link: tcpdump for the time of a test, read afterwards by [`crate::pcap`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::pcap::Trace;
use crate::process::{Place, Process};
use crate::wait;

/// Where Debian and Fedora put it; a service's PATH often lacks sbin.
const TCPDUMP: [&str; 2] = ["/usr/bin/tcpdump", "/usr/sbin/tcpdump"];

/// A running tcpdump. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Begins to write what `interface` carries; returns when tcpdump sees packets.
    ///
    /// # Errors
    /// tcpdump is missing or does not listen within ten seconds.
    pub fn start(place: Place<'_>, interface: &str) -> Result<Self> {
        let Some(program) = TCPDUMP.iter().map(Path::new).find(|p| p.is_file()) else {
            bail!("tcpdump is missing: apt-get install tcpdump");
        };
        let file = place.logs.join(format!("{}.pcap", place.name));
        let path = file.display().to_string();
        // -Z root: stay root, else the file could not be written; -B: 64 MiB, so that a load test loses nothing;
        // --immediate-mode: else a packet waits up to a second in the ring, and is lost when the capture ends first.
        let args = [
            "-i",
            interface,
            "-w",
            &path,
            "-U",
            "-s",
            "0",
            "-n",
            "-B",
            "65536",
            "-Z",
            "root",
            "--immediate-mode",
        ];
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        let process = Process::start(place, program, &args)?;
        wait::until("tcpdump to listen", Duration::from_secs(10), || {
            Ok(process.stderr()?.contains("listening on").then_some(()))
        })
        .with_context(|| process.words())?;
        Ok(Self { process, file })
    }

    /// Ends the capture and reads it.
    ///
    /// # Errors
    /// tcpdump lost packets, does not end, or its file cannot be read.
    pub fn finish(mut self) -> Result<Trace> {
        // The last packets are on their way through the ring.
        std::thread::sleep(Duration::from_millis(200));
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(Duration::from_secs(10))?;
        let words = self.process.stderr()?;
        let lost = words
            .lines()
            .find_map(|l| l.strip_suffix(" packets dropped by kernel"));
        if lost.is_none_or(|n| n.trim() != "0") {
            bail!("tcpdump lost packets, so it proves nothing: {words}");
        }
        let bytes = fs::read(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        Trace::parse(&bytes)
    }
}
