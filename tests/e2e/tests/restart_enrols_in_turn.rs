//! An agent that starts after a crash enrols its pods one after the other. A connection between two of them that comes in
//! between waits for the second, and does not fail.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_e2e::succession::all_are;
use tramline_harness::mesh::{INSIDE, Mesh};

const STARTS: usize = 4;
/// More than one, so that some come before the client in whatever order they are enrolled.
const SERVERS: usize = 5;

#[test]
fn what_is_dialled_while_an_agent_enrols_waits_for_its_pod() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("in-turn", 1)?;
    let client = mesh.pod(1, "client")?;
    let mut servers = Vec::new();
    for number in 0..SERVERS {
        servers.push(mesh.pod(1, &format!("server-{number}"))?);
    }
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    let pods: Vec<_> = servers.iter().chain([&client]).collect();
    mesh.start(&pods)?;
    let mut serving = Vec::new();
    for server in &servers {
        serving.push(mesh.net.serve(server, "server --port 5000")?);
    }
    let mut asked = 0;
    for _ in 0..STARTS {
        mesh.agents[0].kill()?;
        let mut probes = Vec::new();
        for server in &servers {
            let probe = format!(
                "probe --to {} --interval-ms 2 --timeout-ms 10000",
                server.at4(5000)
            );
            probes.push(mesh.net.app(&client, &probe)?);
        }
        for probe in &mut probes {
            probe.wait_event("probing", Duration::from_secs(10))?;
        }
        mesh.agents[0].restart(&mesh.net)?;
        for pod in &pods {
            mesh.wait_enrolled(pod)?;
        }
        for mut probe in probes {
            drop(probe.stdin());
            asked += all_are(&probe.finish(Duration::from_secs(15))?, |result| result == "ok")?;
        }
    }
    ensure!(asked > STARTS * SERVERS, "{asked} probes");
    Ok(())
}
