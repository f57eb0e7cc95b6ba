//! `tramline workloads`.

use std::path::Path;

use super::exit::Failure;
use super::output::{self, OutputArgs, Table, View};
use super::{addresses, client, yes_no};
use crate::observe::admin::api::WorkloadRow;

pub(super) fn run(socket: &Path, args: &OutputArgs) -> Result<(), Failure> {
    let workloads: Vec<WorkloadRow> = client::get(socket, "/workloads")?;
    output::show_list(args.output, &workloads, "workloads", |view| {
        table(&workloads, view)
    })
}

pub(super) fn table(workloads: &[WorkloadRow], view: View) -> Table {
    let mut header = vec!["NAMESPACE", "POD", "NODE", "ADDRESS", "READY", "STATE"];
    if view.wide {
        header.extend(["PROTOCOL", "IDENTITY", "UID"]);
    }
    let mut table = Table::new(&header);
    for workload in workloads {
        let mut row = vec![
            workload.namespace.clone(),
            workload.name.clone(),
            workload.node.clone(),
            addresses(&workload.addresses, view),
            yes_no(workload.ready),
            workload.state.clone(),
        ];
        if view.wide {
            row.extend([
                workload.protocol.clone(),
                workload.identity.clone(),
                workload.uid.clone(),
            ]);
        }
        table.row(row);
    }
    table
}
