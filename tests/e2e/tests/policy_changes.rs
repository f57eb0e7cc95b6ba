//! Changes of policies and workloads without pause, under probes without pause: a connection that begins after a change was
//! acknowledged follows it, whether the kernel decides, the agent of the node, or the one of another node.
//!
//! Each server is opened and closed in its turn. While the change of one is under way, what holds of the others is
//! certain, so nobody waits for anybody. `TRAMLINE_CHANGES` says how many changes are made.
#![expect(clippy::print_stdout, reason = "the figures of a long run")]

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::clock::now;
use tramline_harness::manifests::Manifests;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;

const SOON: Duration = Duration::from_secs(20);
/// Changes in CI.
const CHANGES: usize = 200;
/// Changes after which the probes' records are looked through and forgotten.
const LAP: usize = 200;
/// Between looks whether a change is acknowledged.
const LOOK: Duration = Duration::from_millis(4);

/// A server, how it is reached, and what became of the file that opens and closes it.
struct Server {
    name: &'static str,
    way: &'static str,
    to: SocketAddr,
    switch: Switch,
    kernel: Kernel,
    open: bool,
    certain: Vec<Certain>,
    by_kernel: ByKernel,
}

/// What the kernel must have decided by itself, most of the time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Nothing,
    /// That a connection may go; a remote workload is the agent's.
    LetIn,
    LetInAndRefused,
}

/// One file of the configuration, as it is while a server is open and while it is closed; `None`: there is none.
struct Switch {
    file: String,
    open: Option<String>,
    closed: Option<String>,
}

/// A time in which only one answer is right.
struct Certain {
    open: bool,
    /// When that was acknowledged.
    from: i64,
    /// When the next change was made.
    until: i64,
}

/// Connections that the kernel decided about by itself, as the access log has them.
#[derive(Clone, Copy, Debug, Default)]
struct ByKernel {
    let_in: usize,
    refused: usize,
}

struct Stage {
    mesh: Mesh,
    client: Pod,
    servers: Vec<Server>,
    _processes: Vec<Process>,
}

/// What was seen in all.
#[derive(Debug, Default)]
struct Tally {
    probes: usize,
    let_in: usize,
    refused: usize,
}

fn deny(name: &str, app: &str, source: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata:\n  name: {name}\n  namespace: {INSIDE}\n\
         spec:\n  action: DENY\n  selector:\n    matchLabels:\n      app: {app}\n  \
         rules:\n  - from:\n    - source:\n        {source}\n"
    )
}

impl Switch {
    fn policy(name: &str, source: &str) -> Self {
        Self {
            file: format!("policy-not-to-{name}"),
            open: None,
            closed: Some(deny(&format!("not-to-{name}"), name, source)),
        }
    }

    fn set(&self, config: &Manifests, open: bool) -> Result<()> {
        match if open { &self.open } else { &self.closed } {
            Some(text) => config.write(&self.file, text),
            None => config.remove(&self.file),
        }
    }
}

impl Server {
    fn new(name: &'static str, way: &'static str, to: SocketAddr, switch: Switch) -> Self {
        Self {
            name,
            way,
            to,
            switch,
            kernel: Kernel::LetInAndRefused,
            open: true,
            certain: Vec::new(),
            by_kernel: ByKernel::default(),
        }
    }
}

impl Stage {
    fn new() -> Result<Self> {
        let mut mesh = Mesh::new("policy_changes", 2)?;
        let client = mesh.pod(1, "client")?;
        let near = mesh.pod(1, "near")?;
        let served = mesh.pod(1, "served")?;
        let asked = mesh.pod(1, "asked")?;
        let relabelled = mesh.pod(1, "relabelled")?;
        let far = mesh.pod(2, "far")?;
        let stranger = mesh.net.pod(2, "stranger")?;
        let (_, vip) = mesh.service("served", 1, 80, 5000)?;
        let by_identity = format!("principals: [{:?}]", principal("client"));
        let by_address = format!("ipBlocks: [\"{}\"]", client.v4);
        // Whoever has a policy by address is the agent's to decide about, each time.
        let nobody = deny("nobody", "asked", "ipBlocks: [\"192.0.2.0/24\"]");
        mesh.config.write("policy-nobody", &nobody)?;
        let what_is_closed = deny("what-is-closed", "closed", &by_identity);
        mesh.config.write("policy-what-is-closed", &what_is_closed)?;
        // What answers in plaintext becomes a workload of a node where no agent answers.
        let manifest = |name: &str| fs::read_to_string(mesh.config.dir().join(format!("{name}.yaml")));
        let file = format!("pod-{INSIDE}-stranger");
        let mut elsewhere = stranger.clone();
        "elsewhere".clone_into(&mut elsewhere.node);
        mesh.config.pod(&elsewhere, INSIDE, "stranger", "stranger")?;
        let becomes_workload = Switch {
            open: None,
            closed: Some(manifest(&file)?),
            file,
        };
        becomes_workload.set(&mesh.config, true)?;
        let file = format!("pod-{INSIDE}-relabelled");
        let open = manifest(&file)?;
        let changes_label = Switch {
            closed: Some(open.replace("    app: relabelled\n", "    app: closed\n")),
            open: Some(open),
            file,
        };
        let mut processes = Vec::new();
        for pod in [&near, &served, &asked, &far, &relabelled, &stranger] {
            processes.push(mesh.net.serve(pod, "server --port 5000 --quiet")?);
        }
        mesh.start(&[&client, &near, &served, &asked, &far, &relabelled])?;
        let policy = Switch::policy;
        let mut servers = vec![
            Server::new(
                "near",
                "by the kernel",
                near.at4(5000),
                policy("near", &by_identity),
            ),
            Server::new(
                "served",
                "by a Service",
                (vip, 80).into(),
                policy("served", &by_identity),
            ),
            Server::new(
                "asked",
                "by the agent",
                asked.at4(5000),
                policy("asked", &by_address),
            ),
            Server::new(
                "far",
                "to another node",
                far.at4(5000),
                policy("far", &by_identity),
            ),
            Server::new("relabelled", "by its label", relabelled.at4(5000), changes_label),
            Server::new(
                "stranger",
                "out of the mesh",
                stranger.at4(5000),
                becomes_workload,
            ),
        ];
        for server in &mut servers {
            match server.name {
                "asked" | "far" => server.kernel = Kernel::Nothing,
                "stranger" => server.kernel = Kernel::LetIn,
                _ => {}
            }
        }
        Ok(Self {
            mesh,
            client,
            servers,
            _processes: processes,
        })
    }

    /// Counts what the kernel decided by itself, among the lines that are written.
    fn count_by_kernel(&mut self) -> Result<()> {
        let agent = self.mesh.agent(1)?;
        for server in &mut self.servers {
            let dialled = format!("\"dst.original\":\"{}\"", server.to);
            let (let_in, refused) = (Cell::new(0), Cell::new(0));
            // There are a hundred thousand: too many to parse.
            agent.access_log_with(|line| {
                let has = |field: &str| line.contains(field);
                if has(&dialled) && has(r#""carried_by":"kernel""#) && has(r#""direction":"outbound""#) {
                    let count = if has(r#""verdict":"deny""#) {
                        &refused
                    } else {
                        &let_in
                    };
                    count.set(count.get() + 1);
                }
                false
            })?;
            server.by_kernel.let_in += let_in.get();
            server.by_kernel.refused += refused.get();
        }
        Ok(())
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
        server.switch.set(&self.mesh.config, server.open)?;
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
        let probes = self.servers.iter().map(|server| {
            let args = format!("probe --to {} --interval-ms 1 --timeout-ms 3000", server.to);
            self.mesh.net.app(&self.client, &args)
        });
        let mut probes = probes.collect::<Result<Vec<_>>>()?;
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
        self.count_by_kernel()?;
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
    let (mut tally, mut took) = (Tally::default(), Vec::new());
    let begun = Instant::now();
    while took.len() < changes {
        took.extend(stage.lap(LAP.min(changes - took.len()), &mut tally)?);
        println!("{} changes after {:?}", took.len(), begun.elapsed());
    }
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "{} changes in {:?}, each p50 {:?} p99 {:?} most {:?}; {tally:?}, none stale",
        took.len(),
        begun.elapsed(),
        at(50),
        at(99),
        at(100),
    );
    for server in &stage.servers {
        let ByKernel { let_in, refused } = server.by_kernel;
        println!(
            "  {:<16} by the kernel: {let_in} let in, {refused} refused",
            server.way
        );
        // As many as it had changes, or this tested the agent only.
        let enough = changes / stage.servers.len();
        ensure!(
            (server.kernel == Kernel::Nothing || let_in > enough)
                && (server.kernel != Kernel::LetInAndRefused || refused > enough),
            "the kernel let in {let_in} and refused {refused} {}",
            server.way
        );
    }
    Ok(())
}
