//! What the harness writes is what the agent reads: every test stands on these manifests.

use anyhow::{Context, Result, ensure};
use tramline_core::identity::TrustDomain;
use tramline_core::mesh::MeshSettings;
use tramline_harness::manifests::Manifests;
use tramline_harness::mesh::{INSIDE, Mesh, identity, principal};
use tramline_node_agent::discover::files::FilesSource;

#[test]
fn the_agent_reads_what_the_harness_writes() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let mut mesh = Mesh::new("manifests", 2)?;
    let near = mesh.pod(1, "near-v1")?;
    let far = mesh.pod_as(2, "far-v2", "account", "app")?;
    let outsider = mesh.outsider(1, "outsider")?;
    let (v4, v6) = mesh.service("app", 7, 80, 5000)?;
    mesh.config.peer_authentication(INSIDE, "STRICT")?;
    mesh.config
        .policy(INSIDE, "some", "app", "ALLOW", &[&principal("near-v1")])?;

    let settings = MeshSettings::new(TrustDomain::new("cluster.local")?, "node1");
    let read = FilesSource::new(Manifests::of(&mesh.net).dir(), settings).load_once();
    let read = read.map_err(|errors| anyhow::anyhow!("refused: {errors}"))?;
    ensure!(
        read.workloads().count() == 3,
        "{:?}",
        read.workloads().collect::<Vec<_>>()
    );
    let workload = |address: std::net::Ipv4Addr| {
        read.workload_by_address(address.into())
            .context("unknown address")
    };
    let local = workload(near.v4)?;
    ensure!(
        local.enrolled && local.identity.to_string() == identity("near-v1"),
        "{local:?}"
    );
    ensure!(
        local.uid.to_string() == near.uid && local.addresses.contains(&near.v6.into()),
        "{local:?}"
    );
    let netns = local.netns.as_deref().map(str::to_owned);
    ensure!(
        netns == Some(near.netns.path().display().to_string()),
        "{local:?}"
    );
    ensure!(workload(far.v4)?.identity.to_string() == identity("account"));
    ensure!(!workload(outsider.v4)?.enrolled, "outside is not enrolled");
    for vip in [v4, v6] {
        let service = read.service_by_vip(vip).context("no Service")?;
        ensure!(!service.endpoints.is_empty(), "{service:?}");
    }
    ensure!(read.policies().count() == 1 && read.peer_authentications().count() == 1);
    Ok(())
}
