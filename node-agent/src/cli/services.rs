//! `tramline services`.

use std::path::Path;

use super::exit::Failure;
use super::output::{self, OutputArgs, Table, View};
use super::{addresses, client};
use crate::observe::admin::api::{EndpointRow, ServicePortRow, ServiceRow};

pub(super) fn run(socket: &Path, args: &OutputArgs) -> Result<(), Failure> {
    let services: Vec<ServiceRow> = client::get(socket, "/services")?;
    output::show_list(args.output, &services, "services", |view| table(&services, view))
}

/// One row per Service; wide, one per endpoint.
pub(super) fn table(services: &[ServiceRow], view: View) -> Table {
    let mut header = vec!["NAMESPACE", "SERVICE", "ADDRESS", "PORTS", "ENDPOINTS", "FLAGS"];
    if view.wide {
        header.extend(["ENDPOINT", "STATE", "OPEN", "NODE", "ZONE", "WORKLOAD"]);
    }
    let mut table = Table::new(&header);
    for service in services {
        let row = vec![
            service.namespace.clone(),
            service.name.clone(),
            if service.addresses.is_empty() {
                "headless".to_owned()
            } else {
                addresses(&service.addresses, view)
            },
            list(service.ports.iter().map(|port| port_text(port, view))),
            format!("{}/{}", service.endpoints_ready, service.endpoints_total),
            list(service.flags.iter().cloned()),
        ];
        match view.wide {
            false => table.row(row),
            true if service.endpoints.is_empty() => {
                table.row([row, vec!["-".to_owned(); 6]].concat());
            }
            true => {
                for endpoint in &service.endpoints {
                    table.row([row.clone(), endpoint_cells(endpoint)].concat());
                }
            }
        }
    }
    table
}

fn port_text(port: &ServicePortRow, view: View) -> String {
    match (view.wide, port.name.as_str()) {
        (true, name) if !name.is_empty() => format!("{}({name})", port.port),
        _ => port.port.to_string(),
    }
}

fn endpoint_cells(endpoint: &EndpointRow) -> Vec<String> {
    let ports = list(endpoint.ports.iter().map(|port| port.target_port.to_string()));
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        match endpoint.address {
            std::net::IpAddr::V4(address) => format!("{address}:{ports}"),
            std::net::IpAddr::V6(address) => format!("[{address}]:{ports}"),
        },
        endpoint.state.clone(),
        endpoint.connections.to_string(),
        or_none(&endpoint.node),
        or_none(&endpoint.zone),
        or_none(&endpoint.workload),
    ]
}

fn list(items: impl Iterator<Item = String>) -> String {
    let joined = items.collect::<Vec<_>>().join(",");
    if joined.is_empty() { "-".to_owned() } else { joined }
}
