//! `tramline workloads`.

use std::path::Path;

use super::exit::Failure;
use super::{Output, OutputArgs, client, output};
use crate::observe::admin::api::WorkloadRow;

pub(super) fn run(socket: &Path, args: &OutputArgs) -> Result<(), Failure> {
    let workloads: Vec<WorkloadRow> = client::get(socket, "/workloads")?;
    match args.output {
        Output::Json => output::json(&workloads),
        Output::Table => output::data(&table(&workloads)),
    }
}

pub(super) fn table(workloads: &[WorkloadRow]) -> String {
    let row = |workload: &WorkloadRow| {
        let addresses: Vec<_> = workload.addresses.iter().map(ToString::to_string).collect();
        vec![
            workload.namespace.clone(),
            workload.name.clone(),
            workload.node.clone(),
            addresses.join(","),
            workload.protocol.clone(),
            if workload.ready { "yes" } else { "no" }.to_owned(),
            workload.state.clone(),
            workload.identity.clone(),
        ]
    };
    let header = [
        "NAMESPACE",
        "POD",
        "NODE",
        "ADDRESSES",
        "PROTOCOL",
        "READY",
        "STATE",
        "IDENTITY",
    ];
    output::table(&header, &workloads.iter().map(row).collect::<Vec<_>>())
}
