//! A configuration that somebody breaks: the last good one stays in force, over a restart too; without one the pods
//! stay closed.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::Pod;
use tramline_harness::wait;

const BROKEN: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: broken\n  \
                      namespace: sample\nspec:\n  action: ALLOW\n  rules:\n  - from:\n    - source:\n        \
                      principal: [\"*\"]\n";
const SAID: &str = "broken.yaml:11: AuthorizationPolicy sample/broken (line 1): spec.rules[0].from[0].source.principal: \
                    is not a field; did you mean `principals`?";
const SETTLE: Duration = Duration::from_secs(15);

struct Stage {
    mesh: Mesh,
    allowed: Pod,
    denied: Pod,
    outsider: Pod,
    server: Pod,
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 1)?;
        let allowed = mesh.pod(1, "allowed")?;
        let denied = mesh.pod(1, "denied")?;
        let server = mesh.pod(1, "server")?;
        let outsider = mesh.outsider(1, "outsider")?;
        mesh.config.peer_authentication(INSIDE, "STRICT")?;
        mesh.config
            .policy(INSIDE, "only", "server", "ALLOW", &[&principal("allowed")])?;
        mesh.start(&[&allowed, &denied, &server])?;
        Ok(Self {
            mesh,
            allowed,
            denied,
            outsider,
            server,
        })
    }

    /// Who is answered by the server: the allowed, the denied and the outside pod.
    fn let_in(&mut self) -> Result<[bool; 3]> {
        let to = self.server.at4(5000);
        let mesh = &self.mesh;
        let knock = |from: &Pod| -> Result<bool> {
            let command = format!("client --to {to} --send hello --timeout-ms 2000");
            let line: Value = mesh.net.call_one(from, &command)?;
            Ok(line["received"] == "hello")
        };
        Ok([
            knock(&self.allowed)?,
            knock(&self.denied)?,
            knock(&self.outsider)?,
        ])
    }

    /// Waits until the status says `wanted`, and returns it. The agent need not be ready.
    fn wait_status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let agent = self.mesh.agent(1)?;
        wait::until(what, SETTLE, || {
            Ok(agent
                .ask("status")
                .ok()
                .map(|(_, status)| status)
                .filter(|status| wanted(status)))
        })
        .with_context(|| agent.words())
    }

    /// What is kept of the last good configuration.
    fn kept(&self) -> Result<PathBuf> {
        let dir = self.mesh.net.run().dir().join("ca");
        let found = fs::read_dir(&dir)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| path.display().to_string().contains("/last-good-"));
        found.context("nothing is kept")
    }

    /// Kills the agent and starts another beside the same directory.
    fn begin_again(&mut self) -> Result<()> {
        self.mesh.agents[0].kill()?;
        self.mesh.agents[0].begin(&self.mesh.net)
    }
}

#[test]
fn a_broken_directory_changes_nothing_and_a_restart_does_not_either() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("last_good")?;
    let _process = stage.mesh.net.serve(&stage.server, "server --port 5000")?;
    ensure!(
        stage.let_in()? == [true, false, false],
        "before anything is broken"
    );

    stage.mesh.config.write("broken", BROKEN)?;
    let status = stage.wait_status("the directory to be refused", |status| {
        status["config_errors"] == 1
    })?;
    ensure!(
        status["config_problems"][0] == SAID
            && status["config_from"] == "directory"
            && status["ready"] == true,
        "{status}"
    );
    ensure!(stage.let_in()? == [true, false, false], "refused");

    stage.begin_again()?;
    stage.mesh.agents[0].wait_ready()?;
    let status = stage.wait_status("all pods to be enrolled", |status| status["enrolled"] == 3)?;
    ensure!(
        status["config_from"] == "last_good" && status["config_problems"][0] == SAID,
        "{status}"
    );
    ensure!(stage.let_in()? == [true, false, false], "after the restart");
    let agent = stage.mesh.agent(1)?;
    let ready = agent.get("/readyz?verbose")?.body;
    ensure!(
        ready.contains("[+]configuration ok: the last good one, accepted ") && ready.contains(SAID),
        "{ready}"
    );
    ensure!((agent.metric("tramline_config_from_last_good", &[])? - 1.0).abs() < f64::EPSILON);
    ensure!(
        agent.words().contains("the last good configuration is in force"),
        "{}",
        agent.words()
    );
    let printed = agent.cli("config print")?.to_string();
    ensure!(
        printed.contains("\"only\"") && !printed.contains("\"broken\""),
        "{printed}"
    );

    stage.mesh.change(|config| config.remove("broken"))?;
    let status = stage.wait_status("the directory to be taken", |status| status["config_errors"] == 0)?;
    ensure!(status["config_from"] == "directory", "{status}");
    ensure!(stage.let_in()? == [true, false, false], "whole again");
    Ok(())
}

#[test]
fn without_a_last_good_configuration_the_pods_stay_closed() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("none_good")?;
    let _process = stage.mesh.net.serve(&stage.server, "server --port 5000")?;
    ensure!(
        stage.let_in()? == [true, false, false],
        "before anything is broken"
    );
    stage.mesh.config.write("broken", BROKEN)?;

    fs::remove_file(stage.kept()?)?;
    stage.begin_again()?;
    let refused = |status: &Value| status["config_errors"] == 1;
    let status = stage.wait_status("the directory to be refused", refused)?;
    ensure!(
        status["ready"] == false && status["config_from"] == "nothing",
        "{status}"
    );
    ensure!(
        stage.let_in()? == [false; 3],
        "no configuration, and somebody is let in"
    );

    // Whole again, and kept again; then what is kept is damaged.
    stage.mesh.config.remove("broken")?;
    stage.mesh.agents[0].wait_ready()?;
    stage.wait_status("all pods to be enrolled", |status| status["enrolled"] == 3)?;
    ensure!(stage.let_in()? == [true, false, false], "whole again");
    stage.mesh.config.write("broken", BROKEN)?;
    stage.wait_status("the directory to be refused", refused)?;
    let kept = stage.kept()?;
    let mut bytes = fs::read(&kept)?;
    let last = bytes.last_mut().context("nothing is kept")?;
    *last ^= 1;
    fs::write(&kept, bytes)?;
    stage.begin_again()?;
    let status = stage.wait_status("the directory to be refused", refused)?;
    ensure!(status["ready"] == false, "{status}");
    let ready = stage.mesh.agent(1)?.get("/readyz?verbose")?.body;
    ensure!(
        ready.contains("[-]configuration failed: ") && ready.contains("is damaged (its checksum is another)"),
        "{ready}"
    );
    ensure!(
        stage.let_in()? == [false; 3],
        "a damaged configuration, and somebody is let in"
    );
    Ok(())
}

#[test]
fn an_emptied_directory_is_as_a_broken_one() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new("emptied")?;
    let _process = stage.mesh.net.serve(&stage.server, "server --port 5000")?;
    ensure!(
        stage.let_in()? == [true, false, false],
        "before anything is missing"
    );

    // As a sync tool does, or a volume that is mounted anew.
    let full = stage.mesh.config.dir().to_owned();
    let aside = full.with_extension("aside");
    fs::rename(&full, &aside)?;
    fs::create_dir(&full)?;
    let said = format!("{}: holds no manifest ", full.display());
    let refused = |status: &Value| {
        let problem = status["config_problems"][0].as_str();
        problem.is_some_and(|problem| problem.starts_with(&said))
    };
    let status = stage.wait_status("the empty directory to be refused", refused)?;
    ensure!(
        status["config_errors"] == 1 && status["config_from"] == "directory" && status["ready"] == true,
        "{status}"
    );
    ensure!(stage.let_in()? == [true, false, false], "emptied");

    // An agent that starts before it is filled again goes on with what was good.
    stage.begin_again()?;
    stage.mesh.agents[0].wait_ready()?;
    let status = stage.wait_status("all pods to be enrolled", |status| status["enrolled"] == 3)?;
    ensure!(
        status["config_from"] == "last_good" && refused(&status),
        "{status}"
    );
    ensure!(
        stage.let_in()? == [true, false, false],
        "started beside an empty directory"
    );

    // And without anything good nobody is released.
    fs::remove_file(stage.kept()?)?;
    stage.begin_again()?;
    let status = stage.wait_status("the empty directory to be refused", refused)?;
    ensure!(
        status["ready"] == false && status["config_from"] == "nothing",
        "{status}"
    );
    let ready = stage.mesh.agent(1)?.get("/readyz?verbose")?.body;
    ensure!(
        ready.contains("[-]configuration failed: ") && ready.contains(&said),
        "{ready}"
    );
    ensure!(
        stage.let_in()? == [false; 3],
        "nothing good, and somebody is let in"
    );

    fs::remove_dir(&full)?;
    fs::rename(&aside, &full)?;
    stage.mesh.agents[0].wait_ready()?;
    stage.wait_status("all pods to be enrolled", |status| status["enrolled"] == 3)?;
    ensure!(stage.let_in()? == [true, false, false], "filled again");
    Ok(())
}
