//! Policy changes without pause, under probes without pause: a connection that begins after a change was acknowledged
//! follows it, whether the kernel decides, the agent of the node, or the one of another node.
//!
//! Each of four servers is opened and closed in its turn. While the change of one is under way, what holds of the other three
//! is certain, so nobody waits for anybody. `TRAMLINE_CHANGES` says how many changes are made.
#![expect(clippy::print_stdout, reason = "the figures of a long run")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::clock::now;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(20);
/// Changes in CI.
const CHANGES: usize = 200;
/// Changes after which the probes' records are looked through and forgotten.
const LAP: usize = 200;
/// Between looks whether a change is acknowledged.
const LOOK: Duration = Duration::from_millis(4);

/// Among the servers, the one behind the Service.
const SERVICE: usize = 1;

/// A server, how it is reached, and what became of its policy.
struct Server {
    name: &'static str,
    way: &'static str,
    to: SocketAddr,
    /// The source that is kept out.
    denied: String,
    open: bool,
    certain: Vec<Certain>,
}

/// A time in which only one answer is right.
struct Certain {
    open: bool,
    /// When that was acknowledged.
    from: i64,
    /// When the next change was made.
    until: i64,
}

struct Stage {
    mesh: Mesh,
    client: Pod,
    servers: [Server; 4],
    _processes: [Process; 4],
}

/// What was seen in all.
#[derive(Debug, Default)]
struct Tally {
    probes: usize,
    let_in: usize,
    refused: usize,
    /// Connections to the Service that the kernel refused.
    service_refused: usize,
}

/// What the kernel did by itself.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    /// Connections that it let pass to `near`, and to the endpoint of the Service.
    passed: f64,
    /// Of these, to the endpoint of the Service.
    led: f64,
    /// Connections that it refused, to any of the two.
    denied: f64,
}

fn deny(name: &str, app: &str, source: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata:\n  name: {name}\n  namespace: {INSIDE}\n\
         spec:\n  action: DENY\n  selector:\n    matchLabels:\n      app: {app}\n  \
         rules:\n  - from:\n    - source:\n        {source}\n"
    )
}

impl Stage {
    fn new() -> Result<Self> {
        let mut mesh = Mesh::new("policy_changes", 2)?;
        let client = mesh.pod(1, "client")?;
        let near = mesh.pod(1, "near")?;
        let served = mesh.pod(1, "served")?;
        let asked = mesh.pod(1, "asked")?;
        let far = mesh.pod(2, "far")?;
        let (_, vip) = mesh.service("served", 1, 80, 5000)?;
        // Whoever has a policy by address is the agent's to decide about, each time.
        let nobody = deny("nobody", "asked", "ipBlocks: [\"192.0.2.0/24\"]");
        mesh.config.write("policy-nobody", &nobody)?;
        mesh.start(&[&client, &near, &served, &asked, &far])?;
        let serve = |pod| mesh.net.serve(pod, "server --port 5000 --quiet");
        let processes = [serve(&near)?, serve(&served)?, serve(&asked)?, serve(&far)?];
        let by_identity = format!("principals: [{:?}]", principal("client"));
        let by_address = format!("ipBlocks: [\"{}\"]", client.v4);
        let server = |name, way, to, denied: &str| Server {
            name,
            way,
            to,
            denied: denied.to_owned(),
            open: true,
            certain: Vec::new(),
        };
        Ok(Self {
            servers: [
                server("near", "by the kernel", near.at4(5000), &by_identity),
                server("served", "by a Service", (vip, 80).into(), &by_identity),
                server("asked", "by the agent", asked.at4(5000), &by_address),
                server("far", "to another node", far.at4(5000), &by_identity),
            ],
            mesh,
            client,
            _processes: processes,
        })
    }

    fn event(&self, name: &str) -> Result<f64> {
        let label = format!("event=\"{name}\"");
        self.mesh
            .agent(1)?
            .metric("tramline_ebpf_events_total", &[&label])
    }

    fn kernel(&self) -> Result<Kernel> {
        Ok(Kernel {
            passed: self.event("passed_direct")?,
            led: self.event("service_led")?,
            denied: self.event("verdict_denied")?,
        })
    }

    /// The lines of connections to the Service that the kernel refused by itself, among those that are written. The counter of what
    /// it refused does not tell whom.
    fn refused_by_the_kernel(&self, service: &Server) -> Result<usize> {
        let dialled = format!("\"{}\"", service.to);
        // There are a hundred thousand, most of them of others.
        let lines = self.mesh.agent(1)?.access_log_with(|line| {
            line.contains(&dialled) && line.contains("policy_denied") && line.contains("kernel")
        })?;
        let ours = lines.iter().filter(|line| {
            line["direction"] == "outbound"
                && line["dst.original"] == service.to.to_string()
                && line["dst.workload"] == service.name
                && line["carried_by"] == "kernel"
                && line["verdict"] == "deny"
                && line["bytes_sent"] == 0
        });
        Ok(ours.count())
    }

    /// Opens or closes a server.
    fn change(&mut self, which: usize) -> Result<Duration> {
        let server = &mut self.servers[which];
        let (name, begun) = (server.name, Instant::now());
        let until = now()?;
        if let Some(last) = server.certain.last_mut() {
            last.until = until;
        }
        server.open = !server.open;
        let before = self.mesh.generations()?;
        let policy = format!("policy-not-to-{name}");
        if server.open {
            self.mesh.config.remove(&policy)?;
        } else {
            let text = deny(&format!("not-to-{name}"), name, &server.denied);
            self.mesh.config.write(&policy, &text)?;
        }
        loop {
            let after = self.mesh.generations()?;
            if after.iter().zip(&before).all(|(after, before)| after > before) {
                break;
            }
            ensure!(begun.elapsed() < SOON, "{name}: {before:?}, still {after:?}");
            std::thread::sleep(LOOK);
        }
        server.certain.push(Certain {
            open: server.open,
            from: now()?,
            until: i64::MAX,
        });
        Ok(begun.elapsed())
    }

    /// Some changes under probes; what became of each probe that only one answer was right for.
    fn lap(&mut self, changes: usize, tally: &mut Tally) -> Result<Vec<Duration>> {
        let probes = self.servers.each_ref().map(|server| {
            let args = format!("probe --to {} --interval-ms 1 --timeout-ms 3000", server.to);
            self.mesh.net.app(&self.client, &args)
        });
        let mut probes = probes.into_iter().collect::<Result<Vec<_>>>()?;
        for probe in &mut probes {
            probe.wait_event("probe", SOON)?;
        }
        let from = now()?;
        for server in &mut self.servers {
            server.certain = vec![Certain {
                open: server.open,
                from,
                until: i64::MAX,
            }];
        }
        let mut took = Vec::new();
        for number in 0..changes {
            took.push(self.change(number % self.servers.len())?);
        }
        for (server, probe) in self.servers.iter().zip(probes) {
            let lines = probe.finish_and_clear(SOON)?;
            tally.check(server, &lines)?;
        }
        tally.service_refused += self.refused_by_the_kernel(&self.servers[SERVICE])?;
        for agent in &self.mesh.agents {
            agent.discard_access_log()?;
        }
        Ok(took)
    }
}

impl Tally {
    fn check(&mut self, server: &Server, lines: &[Value]) -> Result<()> {
        let mut certain = server.certain.iter().peekable();
        let mut seen = [0, 0];
        for line in lines.iter().filter(|line| line["event"] == "probe") {
            self.probes += 1;
            let at = |key: &str| line[key].as_i64().with_context(|| format!("no {key} in {line}"));
            let (begun, ended) = (at("begun_ns")?, at("ended_ns")?);
            while certain.next_if(|certain| certain.until <= begun).is_some() {}
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
            "  {:<16} {:>6} let in, {:>6} refused",
            server.way, seen[1], seen[0]
        );
        // Probes in at least every second change, or this showed little.
        let each = server.certain.len() / 4;
        ensure!(
            seen.iter().all(|count| *count >= each),
            "{}: {seen:?} in {} changes",
            server.way,
            server.certain.len()
        );
        self.refused += seen[0];
        self.let_in += seen[1];
        Ok(())
    }
}

#[test]
fn policy_changes() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let changes = match std::env::var("TRAMLINE_CHANGES") {
        Ok(number) => number.parse().context("TRAMLINE_CHANGES")?,
        Err(_) => CHANGES,
    };
    let mut stage = Stage::new()?;
    let to = stage.servers[0].to;
    wait::until("the kernel to let a connection pass", SOON, || {
        let before = stage.event("passed_direct")?;
        stage
            .mesh
            .net
            .call_one(&stage.client, &format!("client --to {to} --send hello"))?;
        Ok((stage.event("passed_direct")? > before).then_some(()))
    })?;
    let before = stage.kernel()?;
    let (mut tally, mut took) = (Tally::default(), Vec::new());
    let begun = Instant::now();
    while took.len() < changes {
        took.extend(stage.lap(LAP.min(changes - took.len()), &mut tally)?);
        println!("{} changes after {:?}", took.len(), begun.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let after = stage.kernel()?;
    let led = after.led - before.led;
    let (passed, denied) = (after.passed - before.passed - led, after.denied - before.denied);
    let service_refused = tally.service_refused;
    println!(
        "{} changes in {:?}, each p50 {:?} p99 {:?} most {:?}; {tally:?}, none stale; of these the kernel let {passed} in by \
         address and {led} by the Service, and refused {denied}, {service_refused} of them by the Service",
        took.len(),
        begun.elapsed(),
        at(50),
        at(99),
        at(100),
    );
    // As many as changes by each of the two ways, or this tested the agent only.
    let enough = f64::from(u32::try_from(changes)?);
    ensure!(
        passed > enough && led > enough,
        "let in {passed} by address, {led} by the Service"
    );
    ensure!(
        service_refused > changes && denied - f64::from(u32::try_from(service_refused)?) > enough,
        "refused {denied}, {service_refused} of them by the Service"
    );
    Ok(())
}
