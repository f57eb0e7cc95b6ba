//! Changes of trust without pause, under probes without pause: who begins a connection after a root was taken away or a
//! certificate revoked is refused by the agent that was told, be it the client's or the server's, and let in again after the
//! root is back. All others go on.
//!
//! `TRAMLINE_CHANGES` says how many changes are made.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tramline_e2e::authority::{Authority, TrustDir};
use tramline_e2e::changes::{Run, Server, wait};
use tramline_harness::mesh::{Mesh, identity};
use tramline_harness::process::Process;
use tramline_harness::rotations::certificate;

/// Changes in CI.
const CHANGES: usize = 98;
/// Of the authorities: no certificate is renewed within it by half, since a new one is not on the list.
const LONG: Duration = Duration::from_secs(10 * 24 * 3600);

/// Between pods of different nodes, in the order of [`Stage::servers`]; a root that is not trusted concerns them all.
const CROSS_NODE: &[usize] = &[0, 1, 2, 3];
/// Each change, and the servers that it opens or closes. Between a change and its opposite comes another, so that there is a
/// time in which it holds.
const ORDER: [(Switch, &[usize]); 14] = [
    (Switch::Root { node: 1 }, CROSS_NODE),
    NOBODY,
    (Switch::Root { node: 1 }, CROSS_NODE),
    NOBODY_MORE,
    (Switch::Root { node: 2 }, CROSS_NODE),
    NOBODY,
    (Switch::Root { node: 2 }, CROSS_NODE),
    NOBODY_MORE,
    SHOWN,
    CALLER,
    SHOWN,
    CALLER,
    NOBODY,
    NOBODY_MORE,
];
const NOBODY: (Switch, &[usize]) = (
    Switch::Nobody {
        node: 2,
        revoked: true,
    },
    &[],
);
const NOBODY_MORE: (Switch, &[usize]) = (
    Switch::Nobody {
        node: 2,
        revoked: false,
    },
    &[],
);
const SHOWN: (Switch, &[usize]) = (
    Switch::Certificate {
        node: 1,
        identity: "shown",
    },
    &[2],
);
const CALLER: (Switch, &[usize]) = (
    Switch::Certificate {
        node: 2,
        identity: "caller",
    },
    &[3],
);

/// What is changed, at which node, counted from 1.
#[derive(Clone, Copy)]
enum Switch {
    /// Whether the other node's root is trusted.
    Root { node: u8 },
    /// Whether a certificate of the other node is revoked.
    Certificate { node: u8, identity: &'static str },
    /// Whether a certificate that nobody has is revoked.
    Nobody { node: u8, revoked: bool },
}

struct Stage {
    mesh: Mesh,
    authorities: [Authority; 2],
    files: [TrustDir; 2],
    servers: [Server; 5],
    _processes: Vec<Process>,
}

impl Stage {
    fn new() -> Result<Self> {
        let mut mesh = Mesh::new("trust_changes", 2)?;
        let client = mesh.pod(1, "client")?;
        let caller = mesh.pod(1, "caller")?;
        let near = mesh.pod(1, "near")?;
        let far = mesh.pod(2, "far")?;
        let shown = mesh.pod(2, "shown")?;
        let authorities = [Authority::new("one", LONG)?, Authority::new("two", LONG)?];
        let [one, two] = &authorities;
        let files = [
            TrustDir::new(&mesh.net, 1, one, &[one, two])?,
            TrustDir::new(&mesh.net, 2, two, &[one, two])?,
        ];
        mesh.start_with(&[&client, &caller, &near, &far, &shown], |agent| {
            files[usize::from(agent.node().number) - 1].give_to(agent);
            Ok(())
        })?;
        let mut processes = Vec::new();
        for pod in [&near, &far, &shown] {
            processes.push(mesh.net.serve(pod, "server --port 5000 --quiet")?);
        }
        let servers = [
            Server::new("far", "to the other node", &client, far.at4(5000)),
            Server::new("near", "from the other node", &far, near.at6(5000)),
            Server::new("shown", "the server is revoked", &client, shown.at4(5000)),
            Server::new("far", "the client is revoked", &caller, far.at6(5000)),
            // Whom no change concerns; nor those to and from the other node, while a certificate is revoked.
            Server::new("near", "on one node", &client, near.at4(5000)).every(5),
        ];
        Ok(Self {
            mesh,
            authorities,
            files,
            servers,
            _processes: processes,
        })
    }

    fn lap(&mut self, run: &mut Run) -> Result<()> {
        let Self {
            mesh,
            authorities,
            files,
            servers,
            ..
        } = self;
        run.lap(
            &mesh.net,
            servers,
            &ORDER.map(|(_, whom)| whom),
            |number, open| ORDER[number].0.set(mesh, authorities, files, open),
        )?;
        mesh.agents
            .iter()
            .try_for_each(|agent| agent.discard_access_log())
    }
}

impl Switch {
    /// Makes the change, and waits until the agent says that it has taken it.
    fn set(self, mesh: &Mesh, authorities: &[Authority; 2], files: &[TrustDir; 2], open: bool) -> Result<()> {
        let (Self::Root { node } | Self::Certificate { node, .. } | Self::Nobody { node, .. }) = self;
        let (here, agent) = (usize::from(node) - 1, mesh.agent(node)?);
        let (own, other) = (&authorities[here], &authorities[1 - here]);
        let revoke = |serials: &[&str]| {
            files[here].revoke(other, serials)?;
            wait(|| {
                let report = agent.asked("/certificates")?;
                let lists = list(&report, "revocation_lists")?;
                Ok(lists
                    .iter()
                    .any(|list| list["issuer"] == other.subject() && list["revoked"] == serials.len()))
            })
        };
        match self {
            Self::Root { .. } => {
                let trusted = if open { vec![own, other] } else { vec![own] };
                files[here].trust(&trusted)?;
                wait(|| Ok(list(&agent.asked("/certificates")?, "roots")?.len() == trusted.len()))
            }
            Self::Certificate { .. } if open => revoke(&[]),
            Self::Certificate { identity: name, .. } => {
                let shown = certificate(mesh, 3 - node, &identity(name))?;
                revoke(&[shown["serial"].as_str().context("no serial number")?])
            }
            Self::Nobody { revoked, .. } => revoke(if revoked { &["77"] } else { &[] }),
        }
    }
}

fn list<'a>(report: &'a Value, name: &str) -> Result<&'a [Value]> {
    report[name]
        .as_array()
        .map(Vec::as_slice)
        .with_context(|| format!("no {name} in {report}"))
}

#[test]
fn trust_changes() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut run = Run::new("TRAMLINE_CHANGES", CHANGES)?;
    let mut stage = Stage::new()?;
    while !run.is_done() {
        stage.lap(&mut run)?;
    }
    run.report();
    Ok(())
}
