//! A Service whose endpoints are not in the mesh: the kernel leads connections to them, and of an endpoint that fails no more than
//! those meet it that are under way; then the agent tries it, who can take another one, until it is reached again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tramline_harness::manifests::Service;
use tramline_harness::mesh::{Mesh, OUTSIDE};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

const SOON: Duration = Duration::from_secs(20);
/// Two times as long as the agent leaves an endpoint alone.
const A_WHILE: Duration = Duration::from_secs(11);
/// The kernel sends a SYN again after a second.
const NOTICED: Duration = Duration::from_millis(1_500);

struct Stage {
    mesh: Mesh,
    client: Pod,
    one: Pod,
    vip: SocketAddr,
    servers: Vec<Process>,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut mesh = Mesh::new("kernel_services_outside", 2)?;
        let client = mesh.pod(1, "client")?;
        let mut outside = |name| {
            let pod = mesh.net.pod(2, name)?;
            mesh.config.pod(&pod, OUTSIDE, name, "server")?;
            Ok::<_, anyhow::Error>(pod)
        };
        let (one, two) = (outside("one")?, outside("two")?);
        let vip = IpAddr::from(Ipv4Addr::new(10, 96, 77, 9));
        mesh.config.service(&Service {
            name: "server",
            namespace: OUTSIDE,
            vips: &[vip],
            ports: &[(80, 5000)],
            app: "server",
        })?;
        let servers = vec![
            mesh.net.serve(&one, "server --port 5000")?,
            mesh.net.serve(&two, "server --port 5000")?,
        ];
        mesh.start(&[&client])?;
        Ok(Self {
            mesh,
            client,
            one,
            vip: (vip, 80).into(),
            servers,
        })
    }

    fn command(&self, patience: Duration) -> String {
        format!(
            "client --to {} --send-bytes 1000 --timeout-ms {}",
            self.vip,
            patience.as_millis()
        )
    }

    fn call(&self) -> Result<Value> {
        self.mesh
            .net
            .call_one(&self.client, &self.command(Duration::from_secs(16)))
    }

    fn led(&self) -> Result<f64> {
        self.mesh
            .agent(1)?
            .metric("tramline_ebpf_events_total", &["event=\"service_led\""])
    }

    /// Calls until the kernel has led a connection to this endpoint, which answered.
    fn wait_led_to(&self, workload: &str) -> Result<()> {
        let agent = self.mesh.agent(1)?;
        let seen = agent.access_log()?.len();
        wait::until("the kernel to lead a connection there", SOON, || {
            self.call()?;
            let lines = agent.access_log()?;
            let found = lines.iter().skip(seen).any(|line| {
                line["dst.workload"] == workload && line["carried_by"] == "kernel" && line["reason"] == "ok"
            });
            Ok(found.then_some(()))
        })
    }

    /// Whoever dials for a while is answered, and the kernel goes on to lead where it can.
    fn all_answered(&self) -> Result<()> {
        let (until, led) = (Instant::now() + A_WHILE, self.led()?);
        while Instant::now() < until {
            let report = self.call()?;
            ensure!(report["received_bytes"] == 1000, "{report}");
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(
            self.led()? > led,
            "the kernel led nobody to the endpoint that answers"
        );
        Ok(())
    }
}

#[test]
fn an_endpoint_that_failed_is_the_agents_until_it_is_reached() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut stage = Stage::new()?;
    stage.wait_led_to("one")?;
    stage.wait_led_to("two")?;

    // Refused: the kernel could not know.
    drop(stage.servers.remove(0));
    wait::until("a connection to be led to the dead endpoint", SOON, || {
        Ok((stage.call()?["received_bytes"] != 1000).then_some(()))
    })?;
    // What is told is written down last.
    stage.mesh.agent(1)?.wait_access(SOON, |line| {
        line["carried_by"] == "kernel" && line["dst.workload"] == "one" && line["reason"] == "connect_refused"
    })?;
    stage.all_answered()?;
    stage
        .servers
        .push(stage.mesh.net.serve(&stage.one, "server --port 5000")?);
    stage.wait_led_to("one")?;

    // Swallowed: the agent hears of the first SYN that was not answered, long before its connection gives up.
    let swallow = |verb: &str| {
        let address = stage.one.v4;
        let node = stage.mesh.net.node(2)?;
        node.netns.ip(&format!("route {verb} blackhole {address}/32\n"))
    };
    swallow("add")?;
    let mut under_way = Vec::new();
    let patience = wait::stretched(Duration::from_secs(30));
    for _ in 0..10 {
        under_way.push(stage.mesh.net.app(&stage.client, &stage.command(patience))?);
    }
    std::thread::sleep(wait::stretched(NOTICED));
    stage.all_answered()?;
    swallow("del")?;
    stage.wait_led_to("one")?;
    // The others hung where they would have without a mesh; they are answered now, or at the latest by their next SYN.
    for process in under_way {
        let reports = process.finish(wait::stretched(Duration::from_secs(60)))?;
        ensure!(
            reports.iter().any(|report| report["received_bytes"] == 1000),
            "{reports:?}"
        );
    }
    Ok(())
}
