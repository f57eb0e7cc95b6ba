//! A client that leaves while its destination does not answer ends the attempt; one that has only sent its last byte and
//! waits keeps it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_harness::mesh::Mesh;

/// Well below the 15 s after which the attempt would end by itself.
const PROMPT: Duration = Duration::from_secs(8);

#[test]
fn client_leaves() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("client_leaves", 2)?;
    let client = mesh.pod(1, "client")?;
    let silent = mesh.outsider(2, "silent")?;
    mesh.start(&[&client])?;
    let _server = mesh.net.serve(&silent, "server --port 5000")?;
    // SYNs arrive and stay without an answer.
    let (v4, v6) = (client.v4, client.v6);
    let deaf = |verb: &str| {
        silent.netns.ip(&format!(
            "route {verb} blackhole {v4}/32\nroute {verb} blackhole {v6}/128\n"
        ))
    };
    deaf("add")?;
    for to in [silent.at4(5000), silent.at6(5000)] {
        mesh.net
            .call_one(&client, &format!("client --to {to} --send bye --then close"))?;
        let dialled = to.to_string();
        let log = mesh
            .agent(1)?
            .wait_access(PROMPT, |line| line["dst.original"] == dialled)?;
        ensure!(log["reason"] == "client_gone", "{log}");
    }
    let wait = |to| {
        mesh.net.app(
            &client,
            &format!("client --to {to} --send stay --timeout-ms 14000"),
        )
    };
    let waiting = [wait(silent.at4(5000))?, wait(silent.at6(5000))?];
    // Both have sent their last byte and are looked after for a while.
    std::thread::sleep(Duration::from_secs(2));
    deaf("del")?;
    for waiting in waiting {
        let lines = waiting.finish(Duration::from_secs(15))?;
        ensure!(lines.iter().any(|line| line["received"] == "stay"), "{lines:?}");
    }
    Ok(())
}
