//! Answers "what would happen to this connection", by the core and by what this agent knows of its pods.

use crate::{
    context::Context,
    observe::admin::api::{CaptureReport, Exclusions, ExplainReport},
};
use serde::{Serialize, de::DeserializeOwned};
use std::net::IpAddr;
use tramline_common::Address;
use tramline_core::{
    explain::{self, Enrolment, Node, Source},
    mesh::Mesh,
    route::Balance,
    workload::{CaptureExclusions, Workload, WorkloadUid},
};

/// Explains a connection from `NAMESPACE/POD` or an address to `HOST:PORT`.
pub(super) fn connection(context: &Context, from: &str, to: &str) -> Result<ExplainReport, String> {
    let mesh = context.mesh.load_full();
    let source = source(&mesh, from)?;
    let destination = explain::resolve(&mesh, &source, to).map_err(|error| format!("--to: {error}"))?;
    let explanation = explain::explain(&mesh, &Here(context), &source, &destination);
    Ok(ExplainReport {
        agent_node: context.node.to_string(),
        generation: mesh.generation(),
        explanation: as_told(&explanation)?,
    })
}

/// Says whether a pod's connections are captured at all.
pub(super) fn capture(context: &Context, from: &str) -> Result<CaptureReport, String> {
    let mesh = context.mesh.load_full();
    let source = source(&mesh, from)?;
    let pod = source
        .pod()
        .ok_or_else(|| format!("{from} is no pod's address: nothing it dials is captured"))?;
    let capture = explain::capture(&Here(context), pod);
    Ok(CaptureReport {
        agent_node: context.node.to_string(),
        generation: mesh.generation(),
        source: as_told(&explain::source_step(&source, &capture))?,
        capture: as_told(&capture)?,
        exclusions: exclusions(&pod.capture),
    })
}

fn source(mesh: &Mesh, from: &str) -> Result<Source, String> {
    Source::parse(mesh, from).map_err(|error| format!("--from: {error}"))
}

fn exclusions(capture: &CaptureExclusions) -> Exclusions {
    Exclusions {
        outbound_ports: capture.outbound_ports.clone(),
        outbound_cidrs: capture.outbound_ranges.iter().map(ToString::to_string).collect(),
        inbound_ports: capture.inbound_ports.clone(),
    }
}

/// The core writes and the command line reads the same JSON; a test holds them together.
pub(super) fn as_told<T: DeserializeOwned>(of: &impl Serialize) -> Result<T, String> {
    serde_json::to_value(of)
        .and_then(serde_json::from_value)
        .map_err(|error| format!("the explanation cannot be told: {error}"))
}

/// This agent, as the core asks about it.
struct Here<'a>(&'a Context);

impl Node for Here<'_> {
    fn enrolment(&self, workload: &Workload) -> Enrolment {
        let pods = &self.0.pods;
        if workload.node != self.0.node {
            Enrolment::Elsewhere
        } else if let Some(why) = pods.failure(&workload.uid) {
            Enrolment::Failed(why)
        } else if pods.get(&workload.uid).is_some() {
            Enrolment::Done
        } else {
            Enrolment::Pending
        }
    }

    fn balance<'a>(&'a self, source: &'a WorkloadUid) -> Box<dyn Balance + 'a> {
        Box::new(self.0.balancer.seen_by(source))
    }

    fn never_captured(&self, address: IpAddr) -> Option<&'static str> {
        class(&Address::from(address))
    }
}

/// The class by which the eBPF programs leave an address alone.
fn class(address: &Address) -> Option<&'static str> {
    if address.is_loopback() {
        Some("loopback")
    } else if address.is_unspecified() {
        Some("unspecified")
    } else if address.is_link_local() {
        Some("link_local")
    } else if address.is_multicast() {
        Some("multicast")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::admin::api;
    use tramline_core::{
        authz::{Action, AuthorizationPolicy, MatchList, Operation, Rule, StringMatch},
        identity::TrustDomain,
        labels::Selector,
        mesh::MeshSettings,
        object::{Kind, Meta, Objects, Pod},
        route::Alike,
    };

    fn pod(name: &str, address: &str) -> Pod {
        let mut meta = Meta::new(Kind::Pod, "a", name);
        meta.labels = [
            ("app".into(), name.into()),
            ("istio.io/dataplane-mode".into(), "tramline".into()),
        ]
        .into();
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
            ready: true,
        }
    }

    struct All;

    impl Node for All {
        fn enrolment(&self, _: &Workload) -> Enrolment {
            Enrolment::Done
        }
        fn balance<'a>(&'a self, _: &'a WorkloadUid) -> Box<dyn Balance + 'a> {
            Box::new(Alike)
        }
        fn never_captured(&self, address: IpAddr) -> Option<&'static str> {
            class(&Address::from(address))
        }
    }

    #[test]
    fn what_the_core_says_is_what_the_command_line_reads() {
        let rule = Rule {
            from: vec![tramline_core::authz::Source {
                principals: MatchList {
                    any: vec![StringMatch::Present],
                    none: Vec::new(),
                },
                ..Default::default()
            }],
            to: vec![Operation {
                ports: MatchList {
                    any: vec![80],
                    none: Vec::new(),
                },
                ..Default::default()
            }],
            when: Vec::new(),
        };
        let policy = |name: &str, action, selector: Option<Selector>| {
            let meta = Meta::new(Kind::AuthorizationPolicy, "a", name);
            AuthorizationPolicy::new(meta, selector, action, vec![rule.clone()])
        };
        let web = Selector::new([("app".into(), "web".into())].into());
        let objects = Objects {
            pods: vec![pod("cli", "10.0.0.1"), pod("web", "10.0.0.2")],
            authorization_policies: vec![
                policy("no", Action::Deny, web),
                policy("yes", Action::Allow, None),
            ],
            ..Objects::default()
        };
        let settings = MeshSettings::new(TrustDomain::new("td").unwrap(), "n1");
        let mesh = Mesh::build(objects, &settings).unwrap();
        let source = Source::parse(&mesh, "a/cli").unwrap();
        let to = explain::resolve(&mesh, &source, "a/web:80").unwrap();
        let said = explain::explain(&mesh, &All, &source, &to);
        let told: api::Explanation = as_told(&said).unwrap();
        assert_eq!(
            (&*told.conclusion.verdict, &*told.conclusion.reason),
            ("deny", "policy_denied")
        );
        let endpoint = &told.endpoints[0];
        assert_eq!(endpoint.path.as_deref(), Some("same_node"));
        let policy = endpoint.policy.as_ref().unwrap();
        assert_eq!(policy.policies.len(), 2);
        assert_eq!(policy.policies[0].scope, api::Scope::Selector("app=web".into()));
        assert_eq!(policy.policies[1].scope, api::Scope::Namespace);
        assert_eq!(policy.policies[0].rules[0].fields.len(), 2);
        assert!(policy.policies[0].decides && !policy.policies[1].asked);
    }

    #[test]
    fn classes_of_addresses_are_those_that_the_programs_leave_alone() {
        for (text, wanted) in [
            ("127.0.0.1", Some("loopback")),
            ("::1", Some("loopback")),
            ("0.0.0.0", Some("unspecified")),
            ("169.254.169.254", Some("link_local")),
            ("fe80::1", Some("link_local")),
            ("ff02::1", Some("multicast")),
            ("255.255.255.255", Some("multicast")),
            ("10.0.0.1", None),
            ("2001:db8::1", None),
        ] {
            let address = Address::from(text.parse::<IpAddr>().unwrap());
            assert_eq!(class(&address), wanted, "{text}");
            assert_eq!(address.is_never_captured(), wanted.is_some(), "{text}");
        }
    }
}
