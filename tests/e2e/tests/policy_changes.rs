//! Changes of policies and workloads without pause, under probes without pause: a connection that begins after a change was
//! acknowledged follows it, whether the kernel decides, the agent of the node, or the one of another node.
//!
//! Each server is opened and closed in its turn. While the change of one is under way, what holds of the others is
//! certain, so nobody waits for anybody. `TRAMLINE_CHANGES` says how many changes are made.

use std::{cell::Cell, fs, net::SocketAddr};

use anyhow::{Result, ensure};
use tramline_e2e::changes::{Run, Server, wait};
use tramline_harness::manifests::Manifests;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::process::Process;

/// Changes in CI.
const CHANGES: usize = 200;

/// How a server is opened and closed, and what the kernel did of that.
struct Rule {
    switch: Switch,
    kernel: Kernel,
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

/// Connections that the kernel decided about by itself, as the access log has them.
#[derive(Clone, Copy, Debug, Default)]
struct ByKernel {
    let_in: usize,
    refused: usize,
}

struct Stage {
    mesh: Mesh,
    servers: Vec<Server>,
    /// In the order of the servers.
    rules: Vec<Rule>,
    _processes: Vec<Process>,
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
        let mut stage = Self {
            mesh,
            servers: Vec::new(),
            rules: Vec::new(),
            _processes: processes,
        };
        let mut add = |name, way, to: SocketAddr, switch, kernel| {
            stage.servers.push(Server::new(name, way, &client, to));
            stage.rules.push(Rule {
                switch,
                kernel,
                by_kernel: ByKernel::default(),
            });
        };
        let (vip, policy) = (SocketAddr::from((vip, 80)), Switch::policy);
        let both = Kernel::LetInAndRefused;
        add(
            "near",
            "by the kernel",
            near.at4(5000),
            policy("near", &by_identity),
            both,
        );
        add(
            "served",
            "by a Service",
            vip,
            policy("served", &by_identity),
            both,
        );
        add(
            "asked",
            "by the agent",
            asked.at4(5000),
            policy("asked", &by_address),
            Kernel::Nothing,
        );
        add(
            "far",
            "to another node",
            far.at6(5000),
            policy("far", &by_identity),
            Kernel::Nothing,
        );
        add(
            "relabelled",
            "by its label",
            relabelled.at6(5000),
            changes_label,
            both,
        );
        add(
            "stranger",
            "out of the mesh",
            stranger.at4(5000),
            becomes_workload,
            Kernel::LetIn,
        );
        Ok(stage)
    }

    /// Some changes, and what the kernel decided meanwhile.
    fn lap(&mut self, run: &mut Run) -> Result<()> {
        let Self {
            mesh, servers, rules, ..
        } = self;
        // Each in its turn.
        let order: Vec<_> = (0..rules.len()).map(|which| [which]).collect();
        let order: Vec<_> = order.iter().map(<[usize; 1]>::as_slice).collect();
        run.lap(&mesh.net, servers, &order, |which, open| {
            let before = mesh.generations()?;
            rules[which].switch.set(&mesh.config, open)?;
            wait(|| {
                let after = mesh.generations()?;
                Ok(after.iter().zip(&before).all(|(after, before)| after > before))
            })
        })?;
        self.count_by_kernel()?;
        for agent in &self.mesh.agents {
            agent.discard_access_log()?;
        }
        Ok(())
    }

    /// Counts what the kernel decided by itself, among the lines that are written.
    fn count_by_kernel(&mut self) -> Result<()> {
        let agent = self.mesh.agent(1)?;
        for (server, rule) in self.servers.iter().zip(&mut self.rules) {
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
            rule.by_kernel.let_in += let_in.get();
            rule.by_kernel.refused += refused.get();
        }
        Ok(())
    }
}

#[test]
fn policy_changes() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut run = Run::new("TRAMLINE_CHANGES", CHANGES)?;
    let mut stage = Stage::new()?;
    while !run.is_done() {
        stage.lap(&mut run)?;
    }
    run.report();
    for (server, rule) in stage.servers.iter().zip(&stage.rules) {
        let ByKernel { let_in, refused } = rule.by_kernel;
        println!(
            "  {:<16} by the kernel: {let_in} let in, {refused} refused",
            server.way
        );
        // As many as it had changes, or this tested the agent only.
        let enough = run.asked() / stage.servers.len();
        ensure!(
            (rule.kernel == Kernel::Nothing || let_in > enough)
                && (rule.kernel != Kernel::LetInAndRefused || refused > enough),
            "the kernel let in {let_in} and refused {refused} {}",
            server.way
        );
    }
    Ok(())
}
