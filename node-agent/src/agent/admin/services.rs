//! Services as the admin socket tells them.

use crate::observe::admin::api::{EndpointPortRow, EndpointRow, ServicePortRow, ServiceRow};
use std::net::SocketAddr;
use tramline_core::{
    mesh::Mesh,
    route::Balance,
    service::{Distribution, Endpoint, Readiness, Service},
};

/// Every Service, by namespace and name.
pub(super) fn rows(mesh: &Mesh, balance: &dyn Balance) -> Vec<ServiceRow> {
    mesh.services()
        .map(|service| row(mesh, balance, service))
        .collect()
}

fn row(mesh: &Mesh, balance: &dyn Balance, service: &Service) -> ServiceRow {
    ServiceRow {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        hostname: service.hostname.to_string(),
        addresses: service.vips.clone(),
        ports: service
            .ports
            .iter()
            .map(|port| ServicePortRow {
                name: port.name.to_string(),
                port: port.port,
                app_protocol: port.app_protocol.as_ref().map(ToString::to_string),
            })
            .collect(),
        endpoints_ready: service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.is_ready())
            .count(),
        endpoints_total: service.endpoints.len(),
        flags: flags(service),
        endpoints: service
            .endpoints
            .iter()
            .map(|endpoint| self::endpoint(mesh, balance, endpoint))
            .collect(),
    }
}

fn flags(service: &Service) -> Vec<String> {
    let mut flags = Vec::new();
    if service.node_local {
        flags.push("internalTrafficPolicy=Local".to_owned());
    }
    if let Some(timeout) = service.session_affinity {
        flags.push(format!("sessionAffinity=ClientIP({}s)", timeout.as_secs()));
    }
    match service.distribution {
        Distribution::Anywhere => {}
        Distribution::SameZone => flags.push("trafficDistribution=PreferSameZone".to_owned()),
        Distribution::SameNode => flags.push("trafficDistribution=PreferSameNode".to_owned()),
    }
    flags
}

fn endpoint(mesh: &Mesh, balance: &dyn Balance, endpoint: &Endpoint) -> EndpointRow {
    let workload = endpoint.workload.as_ref().and_then(|uid| mesh.workload(uid));
    EndpointRow {
        address: endpoint.address,
        workload: workload.map(|workload| format!("{}/{}", workload.namespace, workload.name)),
        node: endpoint.node.as_ref().map(ToString::to_string),
        zone: endpoint.zone.as_ref().map(ToString::to_string),
        ready: endpoint.is_ready(),
        state: match endpoint.readiness {
            Readiness::Ready => "ready",
            Readiness::Draining => "draining",
            Readiness::NotReady => "not_ready",
        }
        .to_owned(),
        connections: endpoint
            .ports
            .iter()
            .map(|(_, target)| balance.load(SocketAddr::new(endpoint.address, *target)))
            .sum(),
        ports: endpoint
            .ports
            .iter()
            .map(|(port, target_port)| EndpointPortRow {
                port: *port,
                target_port: *target_port,
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tramline_core::{
        identity::TrustDomain,
        mesh::MeshSettings,
        object::{Kind, Meta, Objects, Pod, ServiceObject, ServiceObjectPort, TargetPort},
        route::Alike,
    };

    fn pod(name: &str, address: &str, ready: bool) -> Pod {
        let mut meta = Meta::new(Kind::Pod, "a", name);
        meta.labels = [("app".into(), "web".into())].into();
        Pod {
            meta,
            deleting: false,
            owner: None,
            node: "n1".into(),
            service_account: None,
            host_network: false,
            ports: Vec::new(),
            addresses: vec![address.parse().unwrap()],
            ended: false,
            ready,
        }
    }

    #[test]
    fn a_service_is_told_with_its_flags_and_each_endpoint() {
        let service = ServiceObject {
            meta: Meta::new(Kind::Service, "a", "web"),
            vips: vec!["10.96.0.1".parse().unwrap()],
            ports: vec![ServiceObjectPort {
                name: "http".into(),
                port: 80,
                target: TargetPort::Number(8080),
                app_protocol: None,
            }],
            selector: [("app".into(), "web".into())].into(),
            publish_not_ready: false,
            node_local: true,
            session_affinity: Some(Duration::from_secs(10_800)),
            distribution: Distribution::SameZone,
        };
        let objects = Objects {
            pods: vec![pod("one", "10.0.0.1", true), pod("two", "10.0.0.2", false)],
            services: vec![service],
            ..Objects::default()
        };
        let settings = MeshSettings::new(TrustDomain::new("td").unwrap(), "n1");
        let rows = rows(&Mesh::build(objects, &settings).unwrap(), &Alike);
        let [row] = rows.as_slice() else {
            panic!("{rows:?}");
        };
        assert_eq!((row.endpoints_ready, row.endpoints_total), (1, 2));
        assert_eq!(
            row.flags,
            [
                "internalTrafficPolicy=Local",
                "sessionAffinity=ClientIP(10800s)",
                "trafficDistribution=PreferSameZone"
            ]
        );
        let mut endpoints: Vec<_> = row
            .endpoints
            .iter()
            .map(|endpoint| {
                (
                    endpoint.workload.as_deref().unwrap_or("-"),
                    endpoint.state.as_str(),
                    endpoint.ready,
                    endpoint.ports[0].target_port,
                )
            })
            .collect();
        endpoints.sort_unstable();
        assert_eq!(
            endpoints,
            [
                ("a/one", "ready", true, 8080),
                ("a/two", "not_ready", false, 8080)
            ]
        );
    }
}
