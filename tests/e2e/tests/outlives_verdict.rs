//! A connection that the kernel carries outlives the verdict it began by, and the agent that was there: it is judged all the same
//! when its way is lost or its pod comes back.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tramline_e2e::held::Held;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(10);

struct Stage {
    mesh: Mesh,
    client: Pod,
    server: Pod,
    _served: Process,
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 1)?;
        let client = mesh.pod(1, "client")?;
        let server = mesh.pod(1, "server")?;
        mesh.start(&[&client, &server])?;
        let served = mesh.net.serve(&server, "server --port 5000")?;
        Ok(Self {
            mesh,
            client,
            server,
            _served: served,
        })
    }

    /// A connection that the kernel carries.
    fn hold(&self) -> Result<Held> {
        let to = self.server.at4(5000);
        let passed = || {
            let event = "event=\"passed_direct\"";
            self.mesh.agent(1)?.metric("tramline_ebpf_events_total", &[event])
        };
        wait::until("the kernel to let a connection pass", SOON, || {
            let before = passed()?;
            self.mesh
                .net
                .call_one(&self.client, &format!("client --to {to} --send hello"))?;
            Ok((passed()? > before).then_some(()))
        })?;
        let before = passed()?;
        let held = Held::new(&self.mesh.net, &self.client, to)?;
        ensure!(passed()? > before, "it is not the kernel's");
        Ok(held)
    }

    fn ends_when_its_way_is_lost(&self, mut held: Held) -> Result<()> {
        ensure!(held.is_alive()?, "it ended before");
        self.mesh.net.move_to_second_bridge(&self.server)?;
        wait::until("the connection by the old way to end", SOON, || {
            Ok((!held.is_alive()?).then_some(()))
        })
    }
}

#[test]
fn a_way_that_is_lost_after_a_change_of_the_pod() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("lost_changed")?;
    let held = stage.hold()?;
    stage
        .mesh
        .change(|config| config.pod(&stage.client, INSIDE, "client", "renamed"))?;
    stage.ends_when_its_way_is_lost(held)
}

#[test]
fn a_way_that_is_lost_after_a_crash() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("lost_crash")?;
    let held = stage.hold()?;
    stage.mesh.agents[0].kill()?;
    stage.mesh.agents[0].restart(&stage.mesh.net)?;
    for pod in [&stage.client, &stage.server] {
        stage.mesh.wait_enrolled(pod)?;
    }
    stage.ends_when_its_way_is_lost(held)
}

#[test]
fn a_way_that_is_lost_while_there_is_no_agent() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("lost_without")?;
    let mut held = stage.hold()?;
    stage.mesh.agents[0].kill()?;
    stage.mesh.net.move_to_second_bridge(&stage.server)?;
    ensure!(held.is_alive()?, "nobody is there to end it");
    stage.mesh.agents[0].restart(&stage.mesh.net)?;
    wait::until("the next agent to end it", SOON, || {
        Ok((!held.is_alive()?).then_some(()))
    })
}

#[test]
fn what_forbids_it_comes_with_its_pod() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("comes_back")?;
    let mut held = stage.hold()?;
    let file = format!("pod-{INSIDE}-client");
    let inside = fs::read_to_string(stage.mesh.config.dir().join(format!("{file}.yaml")))?;
    let (before, after) = inside.split_once("  labels:\n").context("no labels")?;
    let outside = format!("{before}  labels:\n    istio.io/dataplane-mode: none\n{after}");
    stage.mesh.change(|config| config.write(&file, &outside))?;
    ensure!(held.is_alive()?, "plaintext is taken");
    // In one file: both or neither.
    let denied = format!(
        "{inside}---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata:\n  name: not-client\n  namespace: {INSIDE}\n\
         spec:\n  action: DENY\n  selector:\n    matchLabels:\n      app: server\n  \
         rules:\n  - from:\n    - source:\n        principals: [{:?}]\n",
        principal("client")
    );
    stage.mesh.change(|config| config.write(&file, &denied))?;
    wait::until("what is forbidden to end", Duration::from_secs(1), || {
        Ok((!held.is_alive()?).then_some(()))
    })
}
