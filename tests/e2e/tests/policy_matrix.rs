//! Every kind of policy over every way to a pod: its own address, a Service, a NodePort of this node and of the other, and a
//! Service that leads a pod to itself; on the same node and across nodes, over both families, by the agent and by the kernel.
//!
//! A NodePort is the way that differs: the node takes the connection, translates it, and it arrives at the target as plaintext
//! of the node's (docs/POLICY.md, "Ways to a pod").

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_e2e::held::Held;
use tramline_harness::mesh::{INSIDE, Mesh, principal};
use tramline_harness::net::{Net, Pod};
use tramline_harness::process::Process;

/// The port of the servers.
const PORT: u16 = 5000;
/// NodePorts of the server on node 1 and on node 2, and those that keep the client's address.
const NODE_PORTS: [u16; 2] = [30_001, 30_002];
const KEEPING: [u16; 2] = [30_101, 30_102];

/// A way to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The client dials the pod's address.
    Pod,
    /// The client dials its Service.
    Service,
    /// The client dials a port of a node; the pod sees the node's address.
    NodePort,
    /// The same where the pod sees the client's address (`externalTrafficPolicy: Local`).
    NodePortKeeping,
    /// The pod dials its own address.
    Itself,
    /// The pod dials a Service whose only endpoint it is.
    Hairpin,
}

/// What a policy is, and the ways it leaves open.
struct Row {
    name: &'static str,
    policy: String,
    open: &'static [Way],
}

fn rows(stage: &Stage) -> Vec<Row> {
    use Way::{Hairpin, Itself, NodePort, NodePortKeeping, Pod, Service};
    let client = principal("client");
    let servers = [principal("near"), principal("far")];
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let addresses = [stage.client.v4.to_string(), stage.client.v6.to_string()];
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let nodes = [
        "10.78.0.0/24",
        "10.77.1.1",
        "10.77.2.1",
        "fd78::/64",
        "fd77:1::1",
        "fd77:2::1",
    ];
    let row = |name, policy, open| Row { name, policy, open };
    vec![
        row(
            "no policy",
            String::new(),
            &[Pod, Service, NodePort, NodePortKeeping, Itself, Hairpin],
        ),
        // What comes by a NodePort has no identity, so nobody's.
        row(
            "ALLOW the client",
            rule("ALLOW", "principals", &[&client]),
            &[Pod, Service, Itself],
        ),
        row(
            "ALLOW the servers",
            rule("ALLOW", "principals", &servers),
            &[Itself, Hairpin],
        ),
        // ... not that of the client either: DENY by identity keeps nobody out who has another way.
        row(
            "DENY the client",
            rule("DENY", "principals", &[&client]),
            &[NodePort, NodePortKeeping, Itself, Hairpin],
        ),
        // This does.
        row(
            "DENY whoever has no identity",
            rule("DENY", "notPrincipals", &["*"]),
            &[Pod, Service, Itself, Hairpin],
        ),
        row(
            "DENY the client and whoever has no identity",
            rule("DENY", "notPrincipals", &servers),
            &[Itself, Hairpin],
        ),
        row("STRICT", strict(), &[Pod, Service, Itself, Hairpin]),
        row("nobody", policy("ALLOW", "spec: {}"), &[Itself]),
        row(
            "ALLOW the client's addresses",
            rule("ALLOW", "ipBlocks", &addresses),
            &[Pod, Service, NodePortKeeping, Itself],
        ),
        row(
            "DENY the client's addresses",
            rule("DENY", "ipBlocks", &addresses),
            &[NodePort, Itself, Hairpin],
        ),
        row(
            "ALLOW the nodes' addresses",
            rule("ALLOW", "ipBlocks", &nodes),
            &[NodePort, Itself],
        ),
        row(
            "DENY the nodes' addresses",
            rule("DENY", "ipBlocks", &nodes),
            &[Pod, Service, NodePortKeeping, Itself, Hairpin],
        ),
        // A field of layer 7: never opens, and closes what it may mean.
        row(
            "ALLOW the client's remote addresses",
            rule("ALLOW", "remoteIpBlocks", &addresses),
            &[Itself],
        ),
        row(
            "DENY the client's remote addresses",
            rule("DENY", "remoteIpBlocks", &addresses),
            &[Itself],
        ),
    ]
}

fn policy(action: &str, spec: &str) -> String {
    let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n";
    let spec = spec.replace("spec: {}", &format!("spec:\n  action: {action}\n"));
    format!("{head}metadata:\n  name: row\n  namespace: {INSIDE}\n{spec}")
}

fn rule(action: &str, field: &str, values: &[&str]) -> String {
    let mut text = policy(action, "spec: {}");
    write!(
        text,
        "  rules:\n  - from:\n    - source:\n        {field}: {values:?}\n"
    )
    .unwrap_or_default();
    text
}

fn strict() -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata:\n  name: row\n  namespace: {INSIDE}\nspec:\n  mtls:\n    mode: STRICT\n"
    )
}

struct Stage {
    mesh: Mesh,
    client: Pod,
    /// On node 1 and on node 2.
    servers: [Pod; 2],
    services: [(IpAddr, IpAddr); 2],
    processes: [Process; 2],
}

impl Stage {
    fn new(kind: &str) -> Result<Self> {
        let mut mesh = Mesh::new(kind, 2)?;
        let client = mesh.pod(1, "client")?;
        let servers = [mesh.pod(1, "near")?, mesh.pod(2, "far")?];
        let services = [
            mesh.service("near", 1, 80, PORT)?,
            mesh.service("far", 2, 80, PORT)?,
        ];
        translate(&mesh.net, &servers)?;
        mesh.start(&[&client, &servers[0], &servers[1]])?;
        let args = format!("server --port {PORT}");
        let processes = [
            mesh.net.serve(&servers[0], &args)?,
            mesh.net.serve(&servers[1], &args)?,
        ];
        Ok(Self {
            mesh,
            client,
            servers,
            services,
            processes,
        })
    }

    /// What the client dials.
    fn of_client(&self) -> Vec<(Way, SocketAddr)> {
        let mut ways = Vec::new();
        for (at, server) in self.servers.iter().enumerate() {
            let (v4, v6) = self.services[at];
            ways.extend([(Way::Pod, server.at4(PORT)), (Way::Pod, server.at6(PORT))]);
            ways.extend([(Way::Service, (v4, 80).into()), (Way::Service, (v6, 80).into())]);
            for node in [1, 2] {
                ways.extend(node_addresses(node).map(|a| (Way::NodePort, (a, NODE_PORTS[at]).into())));
            }
        }
        // On one bridge the answer would not come back by the node that translated the question.
        ways.extend(node_addresses(2).map(|a| (Way::NodePortKeeping, (a, KEEPING[1]).into())));
        ways
    }

    /// What a server dials of itself.
    fn of_server(&self, at: usize) -> Vec<(Way, SocketAddr)> {
        let (server, (v4, v6)) = (&self.servers[at], self.services[at]);
        vec![
            (Way::Itself, server.at4(PORT)),
            (Way::Itself, server.at6(PORT)),
            (Way::Hairpin, (v4, 80).into()),
            (Way::Hairpin, (v6, 80).into()),
        ]
    }

    /// Dials each way some times: first the agent decides, then the kernel may.
    fn knock(&self, pod: &Pod, ways: &[(Way, SocketAddr)], row: &Row) -> Result<Vec<String>> {
        let to: Vec<String> = ways.iter().map(|(_, to)| to.to_string()).collect();
        let args = format!("knock --to {} --times 3 --pause-ms 20", to.join(","));
        let mut wrong = Vec::new();
        let lines = self.mesh.net.call(pod, &args)?;
        ensure!(lines.len() == 3 * ways.len(), "{lines:?}");
        for line in lines {
            let to: SocketAddr = line["to"].as_str().context("no address")?.parse()?;
            let (way, _) = ways
                .iter()
                .find(|(_, way)| *way == to)
                .context("nobody dialled")?;
            let open = row.open.contains(way);
            let prompt = line["result"] != "timeout";
            if (line["result"] == "ok") != open || !prompt {
                let wanted = if open { "open" } else { "closed" };
                wrong.push(format!(
                    "{}: {} by {way:?} is {wanted}, {line}",
                    row.name, pod.name
                ));
            }
        }
        Ok(wrong)
    }

    /// Opens a connection by each way.
    fn hold(&self) -> Result<Vec<(String, Way, Held)>> {
        let of_client = self.of_client().into_iter().map(|way| (&self.client, way));
        let of_servers = [0, 1].into_iter().flat_map(|at| {
            let ways = self.of_server(at).into_iter();
            ways.map(move |way| (&self.servers[at], way))
        });
        of_client
            .chain(of_servers)
            .map(|(pod, (way, to))| {
                let held = Held::new(&self.mesh.net, pod, to)?;
                Ok((format!("{} to {to} by {way:?}", pod.name), way, held))
            })
            .collect()
    }

    fn event(&self, name: &str) -> Result<f64> {
        let label = format!("event=\"{name}\"");
        self.mesh
            .agent(1)?
            .metric("tramline_ebpf_events_total", &[&label])
    }

    /// The addresses that a server has seen clients come from.
    fn seen(&self, at: usize) -> Result<BTreeSet<IpAddr>> {
        let lines = self.processes[at].json()?;
        let peers = lines.iter().filter(|line| line["event"] == "accepted");
        let address = |line: &Value| Some(line["peer"].as_str()?.parse::<SocketAddr>().ok()?.ip());
        Ok(peers.filter_map(address).collect())
    }
}

/// Towards the link, which the other node reaches too.
fn node_addresses(node: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, u16::from(node));
    [IpAddr::from([10, 78, 0, node]), v6.into()]
}

/// Has both nodes answer on NodePorts as kube-proxy does: to the pod with the node's address as source, or, for ports that
/// keep the client's (`externalTrafficPolicy: Local`), only to a pod of their own.
fn translate(net: &Net, servers: &[Pod; 2]) -> Result<()> {
    for node in net.nodes() {
        let [own4, own6] = node_addresses(node.number);
        let mut v4 = String::new();
        let mut v6 = String::new();
        for (at, server) in servers.iter().enumerate() {
            let keeping = (server.node == node.name).then_some((KEEPING[at], ""));
            // The mark is the one of kube-proxy for what is to come from the node.
            for (port, mark) in keeping
                .into_iter()
                .chain([(NODE_PORTS[at], "meta mark set 0x4000 ")])
            {
                let (to4, to6) = (server.at4(PORT), server.at6(PORT));
                writeln!(v4, "ip daddr {own4} tcp dport {port} {mark}dnat to {to4}")?;
                writeln!(v6, "ip6 daddr {own6} tcp dport {port} {mark}dnat to {to6}")?;
            }
        }
        for (family, rules) in [("ip", v4), ("ip6", v6)] {
            node.netns.nft(&format!(
                "table {family} nodeports {{\n\
                 chain prerouting {{\ntype nat hook prerouting priority dstnat;\n{rules}}}\n\
                 chain postrouting {{\ntype nat hook postrouting priority srcnat;\n\
                 meta mark 0x4000 masquerade\n}}\n}}\n"
            ))?;
        }
    }
    Ok(())
}

#[test]
fn policy_matrix() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("policy_matrix")?;
    let of_client = stage.of_client();
    let mut wrong = Vec::new();
    for row in rows(&stage) {
        if !row.policy.is_empty() {
            stage.mesh.change(|config| config.write("row", &row.policy))?;
        }
        wrong.extend(stage.knock(&stage.client, &of_client, &row)?);
        for (at, server) in stage.servers.iter().enumerate() {
            wrong.extend(stage.knock(server, &stage.of_server(at), &row)?);
        }
    }
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // What comes by a NodePort comes from a node, the pod's own or the other.
    for (at, node) in [(0, 1), (1, 2)] {
        let seen = stage.seen(at)?;
        let own = [
            IpAddr::from([10, 77, node, 1]),
            Ipv6Addr::new(0xfd77, node.into(), 0, 0, 0, 0, 0, 1).into(),
        ];
        let client = [IpAddr::from(stage.client.v4), stage.client.v6.into()];
        for address in own.into_iter().chain(node_addresses(3 - node)).chain(client) {
            ensure!(
                seen.contains(&address),
                "node {node} has not seen {address}: {seen:?}"
            );
        }
    }
    for (event, least) in [
        ("passed_direct", 8.0),
        ("verdict_denied", 8.0),
        ("passed_outside", 100.0),
    ] {
        let passed = stage.event(event)?;
        ensure!(passed >= least, "{event}: {passed}, this tested the agent only");
    }
    Ok(())
}

/// The same of what is open already: a change ends what it forbids by each way, and nothing else.
#[test]
fn what_is_open_follows() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let stage = Stage::new("policy_matrix_open")?;
    let no_policy = Row {
        name: "no policy",
        policy: String::new(),
        open: &[],
    };
    let carriers = ["passed_direct", "service_led", "passed_outside", "captured"];
    let before = carriers.map(|event| stage.event(event));
    let mut wrong = Vec::new();
    let chosen = [
        "ALLOW the client",
        "DENY the client",
        "DENY whoever has no identity",
        "STRICT",
        "DENY the client's addresses",
        "nobody",
    ];
    for row in rows(&stage).iter().filter(|row| chosen.contains(&row.name)) {
        // After that the kernel has verdicts.
        stage.knock(&stage.client, &stage.of_client(), &no_policy)?;
        let held = stage.hold()?;
        stage.mesh.change(|config| config.write("row", &row.policy))?;
        for (name, way, mut connection) in held {
            let open = row.open.contains(&way);
            if connection.is_alive()? != open {
                let wanted = if open { "goes on" } else { "ends" };
                wrong.push(format!("{}: {name} {wanted}", row.name));
            }
        }
        stage.mesh.change(|config| config.remove("row"))?;
    }
    ensure!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    for (event, before) in carriers.into_iter().zip(before) {
        ensure!(
            stage.event(event)? >= before? + 6.0,
            "{event}: not of every kind in every row"
        );
    }
    Ok(())
}
