//! `tramline connections`.

use std::path::Path;

use clap::Args;

use super::client;
use super::exit::Failure;
use super::output::{self, OutputArgs, Table, View};
use crate::observe::admin::api::{ConnectionList, ConnectionRow};

#[derive(Debug, Args)]
pub(super) struct ConnectionsArgs {
    #[command(flatten)]
    output: OutputArgs,

    /// List at most this many
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    limit: usize,
}

pub(super) fn run(socket: &Path, args: &ConnectionsArgs) -> Result<(), Failure> {
    let target = format!("/connections?limit={}", args.limit);
    let list: ConnectionList = client::get(socket, &target)?;
    output::show_list(args.output.output, &list, "connections", |view| {
        table(&list.connections, view)
    })?;
    if list.total > list.connections.len() {
        output::talk(&format!(
            "{} of {}; raise --limit for more",
            list.connections.len(),
            list.total
        ));
    }
    Ok(())
}

pub(super) fn table(connections: &[ConnectionRow], view: View) -> Table {
    let mut header = vec!["ID", "PATH", "SOURCE", "DESTINATION", "SENT", "RECEIVED", "AGE"];
    if view.wide {
        header.extend([
            "STATE",
            "DIRECTION",
            "SECURITY",
            "SOURCE-ADDRESS",
            "DIALLED",
            "CONNECTED-TO",
            "SERVICE",
            "SOURCE-IDENTITY",
            "DESTINATION-IDENTITY",
        ]);
    }
    let mut table = Table::new(&header);
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for connection in connections {
        let named = |name: &Option<String>, address: &dyn ToString| {
            name.clone().unwrap_or_else(|| address.to_string())
        };
        let mut row = vec![
            connection.id.to_string(),
            connection.path.clone(),
            named(&connection.source, &connection.source_address),
            named(&connection.destination, &connection.original_destination),
            output::bytes(connection.to_destination),
            output::bytes(connection.to_source),
            output::age(connection.age_ms / 1000),
        ];
        if view.wide {
            let state = if connection.established {
                "established"
            } else {
                "opening"
            };
            row.extend([
                state.to_owned(),
                connection.direction.clone(),
                connection.security.clone(),
                connection.source_address.to_string(),
                connection.original_destination.to_string(),
                connection.destination_address.to_string(),
                or_none(&connection.service),
                or_none(&connection.source_identity),
                or_none(&connection.destination_identity),
            ]);
        }
        table.row(row);
    }
    table
}
