//! Meshes that are made up: nothing random, so that two runs measure the same.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use tramline_core::authz::{
    Action, AuthorizationPolicy, Condition, ConditionMatch, IpMatch, MatchList, Operation, Rule,
    ServiceAccountMatch, Source, StringMatch,
};
use tramline_core::identity::{SpiffeId, TrustDomain};
use tramline_core::labels::Selector;
use tramline_core::mesh::{Mesh, MeshSettings};
use tramline_core::object::{
    Kind, Meta, ObjectError, Objects, Pod, ServiceObject, ServiceObjectPort, TargetPort,
};
use tramline_core::service::Distribution;
use tramline_core::workload::ContainerPort;

pub(super) const TRUST_DOMAIN: &str = "cluster.local";
pub(super) const RULES: u32 = 10;
/// Workloads of one namespace, half of them on each of two nodes, and one Service for them.
const PER_NAMESPACE: u32 = 100;

pub(super) fn mesh(objects: Objects) -> Result<Mesh> {
    let settings = MeshSettings::new(TrustDomain::new(TRUST_DOMAIN)?, "node-0");
    Mesh::build(objects, &settings).map_err(|errors| refused(&errors))
}

pub(super) fn refused(errors: &[ObjectError]) -> anyhow::Error {
    let texts: Vec<_> = errors.iter().take(3).map(ToString::to_string).collect();
    anyhow::anyhow!("the mesh that was made up is refused: {}", texts.join("; "))
}

pub(super) fn identity(namespace: &str, account: &str) -> Result<SpiffeId> {
    Ok(SpiffeId::new(
        &TrustDomain::new(TRUST_DOMAIN)?,
        namespace,
        account,
    )?)
}

fn any<T>(value: T) -> MatchList<T> {
    MatchList {
        any: vec![value],
        none: Vec::new(),
    }
}

/// The rule of a policy, in one of five forms; no two rules ask for the same peer.
pub(super) fn rule(policy: u32, number: u32) -> Result<Rule> {
    let peer = policy * RULES + number;
    let ports = vec![Operation {
        ports: any(8080),
        ..Operation::default()
    }];
    let from = |source: Source| vec![source];
    Ok(match number % 5 {
        0 => Rule {
            from: from(Source {
                principals: any(StringMatch::principal(&format!(
                    "{TRUST_DOMAIN}/ns/ns-{policy}/sa/sa-{number}"
                ))?),
                ..Source::default()
            }),
            to: ports,
            ..Rule::default()
        },
        1 => Rule {
            from: from(Source {
                namespaces: any(StringMatch::namespace(&format!("team-{peer}"))?),
                ip_blocks: any(IpMatch::parse("10.0.0.0/8")?),
                ..Source::default()
            }),
            ..Rule::default()
        },
        2 => Rule {
            from: from(Source {
                service_accounts: any(ServiceAccountMatch::parse(
                    &format!("ns-{policy}/robot-{number}"),
                    "demo",
                )?),
                ..Source::default()
            }),
            to: ports,
            ..Rule::default()
        },
        3 => Rule {
            from: from(Source {
                ip_blocks: any(IpMatch::parse(&block(peer).to_string())?),
                ..Source::default()
            }),
            ..Rule::default()
        },
        _ => Rule {
            when: vec![Condition {
                matches: ConditionMatch::SourcePrincipal(any(StringMatch::principal(&format!(
                    "{TRUST_DOMAIN}/ns/tenant-{peer}-*"
                ))?)),
            }],
            ..Rule::default()
        },
    })
}

/// The address that the rule of the fourth form asks for.
pub(super) fn block(peer: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0xac10_0000 + peer))
}

pub(super) fn policy(
    namespace: &str,
    name: &str,
    number: u32,
    action: Action,
    app: Option<&str>,
) -> Result<AuthorizationPolicy> {
    let rules = (0..RULES)
        .map(|rule| self::rule(number, rule))
        .collect::<Result<_>>()?;
    let selector = app.and_then(|app| Selector::new([("app".into(), app.into())].into()));
    let meta = Meta::new(Kind::AuthorizationPolicy, namespace, name);
    Ok(AuthorizationPolicy::new(meta, selector, action, rules))
}

pub(super) fn pod(number: u32) -> Pod {
    let namespace = format!("ns-{}", number / PER_NAMESPACE);
    let mut meta = Meta::new(Kind::Pod, &namespace, &format!("web-{number}"));
    meta.uid = Some(format!("3b241101-e2bb-4255-8caf-4136c{number:07}").into());
    meta.labels = [
        ("app".into(), "web".into()),
        ("version".into(), format!("v{}", number % 2).into()),
        ("pod-template-hash".into(), "abc12".into()),
    ]
    .into();
    Pod {
        meta,
        deleting: false,
        owner: None,
        // A hundred nodes or so in a large mesh; the agent's own is node-0.
        node: format!("node-{}", number % 1_000).into(),
        service_account: Some(format!("sa-{}", number % 10).into()),
        host_network: false,
        ports: vec![ContainerPort {
            name: Some("http".into()),
            port: 8080,
        }],
        addresses: vec![IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0001 + number))],
        ended: false,
        ready: true,
    }
}

fn service(namespace: u32) -> ServiceObject {
    ServiceObject {
        meta: Meta::new(Kind::Service, &format!("ns-{namespace}"), "web"),
        vips: vec![IpAddr::V4(Ipv4Addr::from_bits(0x6440_0001 + namespace))],
        ports: vec![ServiceObjectPort {
            name: "http".into(),
            port: 80,
            target: TargetPort::Name("http".into()),
            app_protocol: None,
        }],
        selector: [("app".into(), "web".into())].into(),
        publish_not_ready: false,
        node_local: false,
        session_affinity: None,
        distribution: Distribution::Anywhere,
    }
}

/// A mesh of so many workloads: a Service and two policies per namespace of a hundred, ten policies for the mesh.
pub(super) fn objects(workloads: u32) -> Result<Objects> {
    let namespaces = workloads.div_ceil(PER_NAMESPACE);
    let own = (0..namespaces).flat_map(|namespace| {
        let name = format!("ns-{namespace}");
        [
            policy(&name, "callers", namespace, Action::Allow, Some("web")),
            policy(&name, "nobody", namespace + 1, Action::Deny, None),
        ]
    });
    let of_mesh = (0..10).map(|number| {
        policy(
            MeshSettings::DEFAULT_ROOT_NAMESPACE,
            &format!("mesh-{number}"),
            100_000 + number,
            Action::Deny,
            None,
        )
    });
    Ok(Objects {
        pods: (0..workloads).map(pod).collect(),
        services: (0..namespaces).map(service).collect(),
        authorization_policies: own.chain(of_mesh).collect::<Result<_>>().context("policies")?,
        ..Objects::default()
    })
}
