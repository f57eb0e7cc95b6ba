//! `tramline connections`.

use std::path::Path;

use clap::Args;

use super::exit::Failure;
use super::{Output, OutputArgs, client, output};
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
    match args.output.output {
        Output::Json => output::json(&list)?,
        Output::Table => output::data(&table(&list.connections))?,
    }
    if list.total > list.connections.len() {
        output::talk(&format!(
            "{} of {}; raise --limit for more",
            list.connections.len(),
            list.total
        ));
    }
    Ok(())
}

pub(super) fn table(connections: &[ConnectionRow]) -> String {
    let row = |connection: &ConnectionRow| {
        let peer = |name: &Option<String>, address: &dyn ToString| match name {
            Some(name) => format!("{name} {}", address.to_string()),
            None => address.to_string(),
        };
        vec![
            connection.id.to_string(),
            connection.direction.clone(),
            connection.path.clone(),
            connection.security.clone(),
            peer(&connection.source, &connection.source_address),
            peer(&connection.destination, &connection.original_destination),
            output::bytes(connection.to_destination),
            output::bytes(connection.to_source),
            output::age(connection.age_ms / 1000),
            if connection.established {
                "established"
            } else {
                "opening"
            }
            .to_owned(),
        ]
    };
    let header = [
        "ID",
        "DIRECTION",
        "PATH",
        "SECURITY",
        "SOURCE",
        "DESTINATION",
        "SENT",
        "RECEIVED",
        "AGE",
        "STATE",
    ];
    output::table(&header, &connections.iter().map(row).collect::<Vec<_>>())
}
