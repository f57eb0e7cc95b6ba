//! What operators see.

use std::time::Duration;

use anyhow::{Result, ensure};
use tramline_harness::mesh::identity;
use tramline_harness::wait;

use crate::stage::{PORT, SOON, Stage, text};

/// Istio's counter of opened connections, before and after.
pub(crate) fn metrics(stage: &mut Stage) -> Result<String> {
    const COUNT: u32 = 7;
    const OPENED: &str = "istio_tcp_connections_opened_total";
    let labels = |reporter: &str| {
        [
            format!("reporter=\"{reporter}\""),
            format!("source_principal=\"{}\"", identity("client")),
            format!("destination_principal=\"{}\"", identity("helloworld")),
            "destination_version=\"v1\"".to_owned(),
        ]
    };
    let read = |node: u8, reporter: &str| {
        let labels = labels(reporter);
        stage
            .agent(node)?
            .metric(OPENED, &labels.each_ref().map(String::as_str))
    };
    let before = (read(2, "source")?, read(1, "destination")?);
    stage.get(&stage.client, stage.v1.at4(PORT), COUNT, "none")?;
    let mut now = before;
    let counted = wait::until("the counters", SOON, || {
        now = (read(2, "source")?, read(1, "destination")?);
        Ok((now.0 - before.0 >= f64::from(COUNT) && now.1 - before.1 >= f64::from(COUNT)).then_some(()))
    });
    // A moment more: one too many is as wrong as one too few.
    std::thread::sleep(Duration::from_millis(300));
    now = (read(2, "source")?, read(1, "destination")?);
    let (out, inb) = (now.0 - before.0, now.1 - before.1);
    let expected = f64::from(COUNT);
    ensure!(
        counted.is_ok() && out.to_bits() == expected.to_bits() && inb.to_bits() == expected.to_bits(),
        "{COUNT} requests, node2 counted {out} as source, node1 {inb} as destination"
    );
    Ok(format!(
        "{COUNT} requests of client to helloworld-v1: {OPENED} +{out} at node2 (source), +{inb} at node1 (destination)"
    ))
}

/// One line per connection, with its bytes and duration.
pub(crate) fn access_log(stage: &mut Stage) -> Result<String> {
    const COUNT: u32 = 5;
    let reports = stage.get(&stage.client, stage.service4(), COUNT, "none")?;
    let mut last = None;
    for report in &reports {
        let lines = |line: &serde_json::Value| {
            line["direction"] == "outbound"
                && line["src.addr"] == report["local"]
                && line["dst.original"] == report["peer"]
        };
        let line = stage.agent(2)?.wait_access(SOON, lines)?;
        let times = stage
            .agent(2)?
            .access_log()?
            .iter()
            .filter(|line| lines(line))
            .count();
        ensure!(times == 1, "{times} lines for {}", report["local"]);
        ensure!(
            line["bytes_sent"].as_u64() > Some(0) && line["bytes_recv"].as_u64() > Some(0),
            "no bytes: {line}"
        );
        ensure!(
            line["dst.service"]
                .as_str()
                .is_some_and(|s| s.starts_with("helloworld.")),
            "no Service: {line}"
        );
        last = Some(line);
    }
    let line = last.unwrap_or_default();
    Ok(format!(
        "{COUNT} requests, {COUNT} lines; the last: {} -> {} ({}), sent {}, received {}, {} ms, {}",
        text(&line, "src.addr")?,
        text(&line, "dst.original")?,
        text(&line, "dst.service")?,
        line["bytes_sent"],
        line["bytes_recv"],
        line["duration_ms"],
        text(&line, "reason")?
    ))
}
