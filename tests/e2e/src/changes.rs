//! Changes without pause under probes without pause: a connection that begins after a change was acknowledged follows it.
//!
//! Servers are opened and closed in their turn. While the change of one is under way, what holds of the others is
//! certain, so nobody waits for anybody.
#![expect(clippy::print_stdout, reason = "the figures of a long run")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_harness::net::{Net, Pod};

use crate::clock::now;

const SOON: Duration = Duration::from_secs(20);
/// Changes after which the probes' records are looked through and forgotten.
const LAP: usize = 200;
/// Longer than an answer takes where one is certain, and shorter than a probe waits: what hangs is neither let in nor refused.
const HANGS: i64 = 2_000_000_000;
/// Between looks whether a change is acknowledged.
const LOOK: Duration = Duration::from_millis(4);

/// A server that is probed all the time, and when only one answer was right.
#[derive(Debug)]
pub struct Server {
    /// For messages.
    pub name: &'static str,
    /// How it is reached, for people.
    pub way: &'static str,
    /// Where the probes come from.
    pub client: Pod,
    /// Where they go.
    pub to: SocketAddr,
    interval_ms: u32,
    open: bool,
    certain: Vec<Certain>,
}

/// A time in which only one answer is right, by [`now`].
#[derive(Debug)]
struct Certain {
    open: bool,
    /// When that was acknowledged.
    from: i64,
    /// When the next change was made.
    until: i64,
}

impl Server {
    /// A server that is open.
    #[must_use]
    pub fn new(name: &'static str, way: &'static str, client: &Pod, to: SocketAddr) -> Self {
        Self {
            name,
            way,
            client: client.clone(),
            to,
            interval_ms: 1,
            open: true,
            certain: Vec::new(),
        }
    }

    /// The same, probed less often: who is let in 500 times a second has no port left after a minute.
    #[must_use]
    pub fn every(self, interval_ms: u32) -> Self {
        Self { interval_ms, ..self }
    }

    fn is_certain(&mut self, from: i64) {
        self.certain.push(Certain {
            open: self.open,
            from,
            until: i64::MAX,
        });
    }

    fn is_uncertain(&mut self, until: i64) {
        if let Some(last) = self.certain.last_mut() {
            last.until = until;
        }
    }
}

/// Waits until a change is acknowledged.
///
/// # Errors
/// It is not in time, or `acknowledged` fails.
pub fn wait(mut acknowledged: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !acknowledged()? {
        ensure!(begun.elapsed() < SOON, "not acknowledged after {SOON:?}");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// A number of changes, and what was seen meanwhile.
#[derive(Debug)]
pub struct Run {
    asked: usize,
    begun: Instant,
    took: Vec<Duration>,
    probes: usize,
    let_in: usize,
    refused: usize,
}

impl Run {
    /// As many changes as `variable` of the environment says, or `usual`.
    ///
    /// # Errors
    /// It is no number.
    pub fn new(variable: &'static str, usual: usize) -> Result<Self> {
        let asked = std::env::var(variable).map_or(Ok(usual), |number| number.parse().context(variable))?;
        ensure!(asked > 0, "{variable}: no changes");
        Ok(Self {
            asked,
            begun: Instant::now(),
            took: Vec::new(),
            probes: 0,
            let_in: 0,
            refused: 0,
        })
    }

    /// How many changes that is.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.asked
    }

    /// Whether all were made.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.took.len() >= self.asked
    }

    /// Some of the changes, under probes of all servers. `order`, again and again: the servers, all open or all closed, that
    /// the change of that number concerns. `change` makes one, to open or not, and returns when it is acknowledged.
    ///
    /// # Errors
    /// A change or a probe fails; a probe was answered as it was right before; there were too few probes to say.
    pub fn lap(
        &mut self,
        net: &Net,
        servers: &mut [Server],
        order: &[&[usize]],
        mut change: impl FnMut(usize, bool) -> Result<()>,
    ) -> Result<()> {
        let probes = servers.iter().map(|server| {
            let (to, interval) = (server.to, server.interval_ms);
            let args = format!("probe --to {to} --interval-ms {interval} --timeout-ms 3000");
            net.app(&server.client, &args)
        });
        let mut probes = probes.collect::<Result<Vec<_>>>()?;
        for probe in &mut probes {
            probe.wait_event("probe", SOON)?;
        }
        let from = now()?;
        for server in &mut *servers {
            server.certain.clear();
            server.is_certain(from);
        }
        for _ in 0..LAP.min(self.asked - self.took.len()) {
            let number = self.took.len() % order.len();
            let begun = (Instant::now(), now()?);
            let mut open = false;
            for which in order[number] {
                let server = &mut servers[*which];
                server.is_uncertain(begun.1);
                server.open = !server.open;
                open = server.open;
            }
            change(number, open).with_context(|| format!("change {number} of the order, to {open}"))?;
            let acknowledged = now()?;
            for which in order[number] {
                servers[*which].is_certain(acknowledged);
            }
            self.took.push(begun.0.elapsed());
        }
        for (server, probe) in servers.iter().zip(probes) {
            let lines = probe.finish_and_clear(SOON)?;
            self.check(server, &lines)?;
        }
        println!("{} changes after {:?}", self.took.len(), self.begun.elapsed());
        Ok(())
    }

    /// Says what was seen.
    pub fn report(&mut self) {
        self.took.sort_unstable();
        let at = |percent: usize| self.took[(self.took.len() - 1) * percent / 100];
        println!(
            "{} changes in {:?}, each p50 {:?} p99 {:?} most {:?}; {} probes, {} rightly let in, {} rightly refused, none stale",
            self.took.len(),
            self.begun.elapsed(),
            at(50),
            at(99),
            at(100),
            self.probes,
            self.let_in,
            self.refused,
        );
    }

    fn check(&mut self, server: &Server, lines: &[Value]) -> Result<()> {
        let mut certain = server.certain.iter().peekable();
        let mut seen = [0, 0];
        for line in lines.iter().filter(|line| line["event"] == "probe") {
            self.probes += 1;
            let at = |key: &str| line[key].as_i64().with_context(|| format!("no {key} in {line}"));
            let (begun, ended) = (at("begun_ns")?, at("ended_ns")?);
            while certain.next_if(|certain| certain.until <= begun).is_some() {}
            ensure!(
                line["result"] == "ok" || ended - begun < HANGS,
                "{} {}: hangs: {line}",
                server.name,
                server.way
            );
            let Some(certain) = certain
                .peek()
                .filter(|certain| certain.from <= begun && ended <= certain.until)
            else {
                continue;
            };
            ensure!(
                (line["result"] == "ok") == certain.open,
                "{} {}: acknowledged as {} {} us before, {line}",
                server.name,
                server.way,
                if certain.open { "open" } else { "closed" },
                (begun - certain.from) / 1000,
            );
            seen[usize::from(certain.open)] += 1;
        }
        println!(
            "  {:<24} {:>6} let in, {:>6} refused",
            server.way, seen[1], seen[0]
        );
        // Probes in at least every second change, or this showed little.
        let each = (server.certain.len() / 4).max(1);
        let enough = |open: bool| {
            let was = server.certain.iter().any(|certain| certain.open == open);
            !was || seen[usize::from(open)] >= each
        };
        ensure!(
            enough(true) && enough(false),
            "{}: {seen:?} in {} changes",
            server.way,
            server.certain.len()
        );
        self.refused += seen[0];
        self.let_in += seen[1];
        Ok(())
    }
}
