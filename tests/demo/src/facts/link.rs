//! Between the nodes.

use anyhow::{Result, ensure};
use tramline_harness::mesh::identity;

use crate::stage::{PORT, SOON, Stage, ip};

/// What tcpdump sees of requests in both directions and both families.
pub(crate) fn tls_only(stage: &mut Stage) -> Result<String> {
    const MARKER: &str = "tramline-demo-secret-marker";
    let capture = stage.mesh.net.capture()?;
    for (from, server) in [(&stage.sleep, &stage.v2), (&stage.client, &stage.v1)] {
        for to in [server.at4(PORT), server.at6(PORT)] {
            stage.get(from, to, 5, MARKER)?;
        }
    }
    let trace = capture.finish()?;
    let seen = trace.tls_only(15_008)?;
    ensure!(
        seen.application_data > 0,
        "no TLS application data was seen: {seen:?}"
    );
    ensure!(
        !trace.contains(MARKER.as_bytes()),
        "the requests' marker is on the link in the clear"
    );
    ensure!(
        !trace.contains(b"Hello version"),
        "the answers are on the link in the clear"
    );
    Ok(format!(
        "tcpdump on the link: {} packets, {} TCP directions with bytes, all to or from port 15008; {} bytes in {} TLS \
         records ({} application data); the marker of 20 requests and \"Hello version\" occur nowhere",
        trace.packets(),
        seen.streams,
        seen.bytes,
        seen.records,
        seen.application_data
    ))
}

/// What both agents logged of one connection.
pub(crate) fn identities(stage: &mut Stage) -> Result<String> {
    let report = stage.get(&stage.sleep, stage.v2.at4(PORT), 1, "none")?.remove(0);
    let (source, destination) = (identity("sleep"), identity("helloworld"));
    let local = report["local"].clone();
    let sleep = ip(&report, "local")?.to_string();
    let outbound = stage
        .agent(1)?
        .wait_access(SOON, |line| line["src.addr"] == local)?;
    let inbound = stage.agent(2)?.wait_access(SOON, |line| {
        line["direction"] == "inbound" && line["src.addr"].as_str().is_some_and(|a| a.starts_with(&sleep))
    })?;
    for (name, line) in [("node1", &outbound), ("node2", &inbound)] {
        ensure!(line["src.identity"] == source, "{name}, source: {line}");
        ensure!(line["dst.identity"] == destination, "{name}, destination: {line}");
    }
    Ok(format!(
        "node1 (outbound) and node2 (inbound) both logged {source} -> {destination}"
    ))
}
