//! The benchmark of sizes works: every figure of every axis is taken, from connections that went the way they are called by. What
//! they say of the mesh is for a quiet machine and a release build.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tramline_harness::programs;

#[test]
fn every_size_is_measured() -> Result<()> {
    if !tramline_e2e::ready() {
        return Ok(());
    }
    let file = std::env::temp_dir().join(format!("tramline-scale-{}.json", std::process::id()));
    let output = Command::new(programs::bench()?)
        .args(["scale", "--quick", "--json"])
        .arg(&file)
        .output()?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {words}", output.status);
    let results: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    std::fs::remove_file(&file)?;
    let rows = results["rows"].as_array().context("no rows")?;
    for axis in ["pods", "policies", "workloads"] {
        for metric in [
            "connect_no_mesh_p50",
            "connect_kernel_p50",
            "connect_agent_p50",
            "update",
            "agent_start",
            "agent_resident",
            "agent_resident_after",
            "kernel_maps",
        ] {
            let of_both = rows
                .iter()
                .filter(|row| row["case"] == axis && row["metric"] == metric);
            let mut sizes: Vec<_> = of_both.clone().filter_map(|row| row["n"].as_u64()).collect();
            sizes.dedup();
            ensure!(sizes.len() == 3, "{axis} {metric} at {sizes:?}");
            let measured = |row: &Value| row["value"].as_f64().is_some_and(|value| value > 0.0);
            ensure!(of_both.clone().all(measured), "{axis} {metric}");
        }
    }
    Ok(())
}
