//! `--keep`: everything stays, with commands to play with.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use tramline_harness::mesh::Mesh;
use tramline_harness::programs;

use crate::screen;
use crate::stage::Stage;

/// Lets everything run on and says what can be done with it.
pub(crate) fn keep(mut stage: Stage) -> Result<()> {
    stage.mesh.net.keep()?;
    let script = write_script(&stage.mesh)?;
    let (service4, service6) = (stage.service4(), stage.service6());
    let tramline = programs::agent()?.display().to_string();
    let testapp = programs::testapp()?.display().to_string();
    screen::line("");
    screen::title("Left running; commands to play with");
    screen::line(&format!(
        "{script} sleep {testapp} get http://{service4}/hello --count 4"
    ));
    screen::line(&format!("{script} sleep {testapp} get http://{service6}/hello"));
    screen::line(&format!(
        "{script} intruder {testapp} get http://{}/hello",
        stage.v1.at4(crate::stage::PORT)
    ));
    for agent in &stage.mesh.agents {
        let socket = agent.admin_socket().display();
        for command in ["status", "workloads", "connections"] {
            screen::line(&format!("{tramline} {command} --admin-socket {socket}"));
        }
    }
    let logs = stage.mesh.net.run().dir().join("logs");
    screen::line(&format!("tail -f {}/node*-access.log", logs.display()));
    screen::line(&format!(
        "ls {}    # edit: taken at once",
        stage.mesh.config.dir().display()
    ));
    screen::line("cargo xtask demo --clean    # removes all of it");
    let Stage { servers, mesh, .. } = stage;
    for server in servers {
        server.detach();
    }
    for agent in mesh.agents {
        agent.detach();
    }
    Ok(())
}

/// `in-pod POD COMMAND...`: joins the pod's cgroup, where the programs are attached, and its namespace.
fn write_script(mesh: &Mesh) -> Result<String> {
    let dir = mesh.net.run().dir();
    let path = dir.join("in-pod");
    let testapp = programs::testapp()?;
    let text = format!(
        "#!/bin/sh\n# in-pod POD COMMAND...: runs a command as a process of the pod\npod=$1\nshift\n\
         for cgroup in {}/node*/pod-\"$pod\"; do\n  \
         exec {} exec --cgroup \"$cgroup\" -- ip netns exec {}\"$pod\" \"$@\"\ndone\n",
        mesh.net.run().cgroup().display(),
        testapp.display(),
        mesh.net.run().netns_name(""),
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path.display().to_string())
}
