//! `PeerAuthentication` at every level, with modes for ports and `DISABLE`: who comes in plaintext is let in or refused by
//! the pod's port, on both nodes and between them; who is in the mesh is let in everywhere and never sends plaintext.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::world::{MARKER, address};
use tramline_harness::mesh::{INSIDE, Mesh, identity};
use tramline_harness::net::Pod;
use tramline_harness::process::Process;
use tramline_harness::wait;

const PORTS: [u16; 3] = [5000, 5001, 5002];
/// What pods outside the mesh send.
const PLAIN: &str = "plaintext-of-a-pod-outside-the-mesh";
const SOON: Duration = Duration::from_secs(10);

/// What is in force, one policy per level.
struct Case {
    what: &'static str,
    mesh: &'static str,
    namespace: &'static str,
    /// The whole `spec` of the one for the servers.
    workload: &'static str,
    /// Whether plaintext is let in, by port.
    open: [bool; 3],
}

const CASES: [Case; 6] = [
    Case {
        what: "ports that are more open than their workload",
        mesh: "UNSET",
        namespace: "UNSET",
        workload: "mtls: {mode: STRICT}, portLevelMtls: {5001: {mode: PERMISSIVE}, 5002: {mode: DISABLE}}",
        open: [false, true, true],
    },
    Case {
        what: "a port that is stricter than its workload",
        mesh: "STRICT",
        namespace: "STRICT",
        workload: "mtls: {mode: PERMISSIVE}, portLevelMtls: {5000: {mode: STRICT}, 5001: {mode: DISABLE}, 5002: {mode: UNSET}}",
        open: [false, true, true],
    },
    Case {
        what: "a workload that is disabled, and a port that is not",
        mesh: "STRICT",
        namespace: "STRICT",
        workload: "mtls: {mode: DISABLE}, portLevelMtls: {5002: {mode: STRICT}}",
        open: [true, true, false],
    },
    Case {
        what: "a namespace that is disabled",
        mesh: "STRICT",
        namespace: "DISABLE",
        workload: "portLevelMtls: {5001: {mode: STRICT}}",
        open: [true, false, true],
    },
    Case {
        what: "a mesh that is disabled",
        mesh: "DISABLE",
        namespace: "UNSET",
        workload: "mtls: {mode: UNSET}, portLevelMtls: {5000: {mode: UNSET}, 5002: {mode: STRICT}}",
        open: [true, true, false],
    },
    Case {
        what: "the mesh's mode reaches down to a port",
        mesh: "STRICT",
        namespace: "UNSET",
        workload: "portLevelMtls: {5000: {mode: UNSET}, 5001: {mode: PERMISSIVE}}",
        open: [false, true, false],
    },
];

fn policy(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

impl Case {
    /// The three policies as one file: all of them or none are in force.
    fn manifests(&self) -> String {
        let workload = format!("selector: {{matchLabels: {{app: server}}}}, {}", self.workload);
        let mode = |mode: &str| format!("mtls: {{mode: {mode}}}");
        [
            policy("default", "istio-system", &mode(self.mesh)),
            policy("default", INSIDE, &mode(self.namespace)),
            policy("servers", INSIDE, &workload),
        ]
        .join("---\n")
    }
}

/// Nodes, pods and servers.
struct Stage {
    mesh: Mesh,
    clients: [Pod; 2],
    outsiders: [Pod; 2],
    servers: [Pod; 2],
    _processes: Vec<Process>,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut mesh = Mesh::new("peer_authentication", 2)?;
        let clients = [mesh.pod(1, "client-one")?, mesh.pod(2, "client-two")?];
        let outsiders = [
            mesh.outsider(1, "outsider-one")?,
            mesh.outsider(2, "outsider-two")?,
        ];
        let servers = [
            mesh.pod_as(1, "one", "server", "server")?,
            mesh.pod_as(2, "two", "server", "server")?,
        ];
        mesh.start(&[&clients[0], &clients[1], &servers[0], &servers[1]])?;
        let mut processes = Vec::new();
        for server in &servers {
            for port in PORTS {
                processes.push(mesh.net.serve(server, &format!("server --port {port} --quiet"))?);
            }
        }
        Ok(Self {
            mesh,
            clients,
            outsiders,
            servers,
            _processes: processes,
        })
    }

    fn say(&self, from: &Pod, to: SocketAddr, words: &str) -> Result<Value> {
        self.mesh.net.call_one(
            from,
            &format!("client --to {to} --send {words} --timeout-ms 3000"),
        )
    }

    fn check(&self, case: &Case) -> Result<()> {
        for server in &self.servers {
            for (port, open) in PORTS.into_iter().zip(case.open) {
                for to in [server.at4(port), server.at6(port)] {
                    for outsider in &self.outsiders {
                        self.check_plaintext(outsider, server, to, open)?;
                    }
                    for client in &self.clients {
                        self.check_mesh(client, to)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_plaintext(&self, outsider: &Pod, server: &Pod, to: SocketAddr, open: bool) -> Result<()> {
        let own: IpAddr = if to.is_ipv4() {
            outsider.v4.into()
        } else {
            outsider.v6.into()
        };
        let refusals = |lines: Vec<Value>| {
            let about = lines.into_iter().filter(|line| {
                let from = address(&line["src.addr"]);
                line["direction"] == "inbound"
                    && line["dst.addr"] == to.to_string()
                    && from.is_ok_and(|from| from.ip() == own)
            });
            about.collect::<Vec<_>>()
        };
        let agent = self.mesh.agent_of(server)?;
        let before = refusals(agent.access_log()?).len();
        let answer = self.say(outsider, to, PLAIN)?;
        let talked = answer["received"] == PLAIN;
        ensure!(
            talked == open,
            "{} to {to}, open: {open}: {answer}",
            outsider.name
        );
        if open {
            return Ok(());
        }
        ensure!(answer["received_bytes"].as_u64().unwrap_or(0) == 0, "{answer}");
        ensure!(
            answer["connect"] != "timeout" && answer["end"] != "timeout",
            "a refusal must be prompt: {answer}"
        );
        let line = wait::until("the refusal in the access log", SOON, || {
            let lines = refusals(agent.access_log()?);
            Ok((lines.len() > before).then(|| lines.last().cloned()).flatten())
        })?;
        ensure!(
            line["reason"] == "mtls_required" && line["verdict"] == "deny" && line["path"] == "plaintext",
            "{line}"
        );
        ensure!(
            line["src.identity"].is_null() && line["security"] == "unknown",
            "{line}"
        );
        Ok(())
    }

    fn check_mesh(&self, client: &Pod, to: SocketAddr) -> Result<()> {
        let answer = self.say(client, to, MARKER)?;
        ensure!(answer["received"] == MARKER, "{} to {to}: {answer}", client.name);
        let from = &answer["local"];
        let line = self.mesh.agent_of(client)?.wait_access(SOON, |line| {
            line["direction"] == "outbound"
                && line["src.addr"] == *from
                && line["dst.original"] == to.to_string()
        })?;
        ensure!(
            line["security"] == "mutual_tls" && line["dst.identity"] == identity("server"),
            "{line}"
        );
        Ok(())
    }
}

#[test]
fn peer_authentication_is_enforced_by_port_and_disable_never_means_plaintext() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new()?;
    let capture = stage.mesh.net.capture()?;
    for case in &CASES {
        stage
            .mesh
            .change(|config| config.write("peer-authentication", &case.manifests()))?;
        stage.check(case).with_context(|| case.what)?;
    }
    let trace = capture.finish()?;
    ensure!(
        trace.contains(PLAIN.as_bytes()),
        "the capture has not seen the plaintext that was let in"
    );
    ensure!(
        !trace.contains(MARKER.as_bytes()),
        "a pod of the mesh sent plaintext over the link"
    );
    Ok(())
}
