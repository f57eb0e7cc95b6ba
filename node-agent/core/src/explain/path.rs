//! Where a connection ends, by which way, and what the policies there say.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use super::capture::{self, Capture};
use super::verdict::{self, Conclusion, Verdict};
use super::{Destination, Enrolment, MAX_ENDPOINTS, Node, Source, name_of};
use crate::admit::{self, HBONE_PORT};
use crate::authz;
use crate::mesh::Mesh;
use crate::reason::Reason;
use crate::route::{self, Balance, RouteError, Target};
use crate::service::{Endpoint, Readiness, Service};
use crate::workload::{Protocol, Workload};

/// One place where the connection may end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointStep {
    /// Where the application listens.
    pub address: SocketAddr,
    /// `NAMESPACE/NAME` of its pod; `None` outside the mesh.
    pub pod: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// What it proves to the source; `None` in plaintext.
    pub identity: Option<String>,
    /// Why the Service does not send this connection there; `None` where it may.
    pub left_out: Option<String>,
    /// Connections of this agent that are open to it or being opened: the fewer, the likelier it is chosen.
    pub connections: u64,
    /// Whether it could not be reached just now, so that others are tried first.
    pub avoided: bool,
    /// The way there: `same_node`, `hbone`, `passthrough` (captured, and plain from the agent on), `plaintext` (not
    /// captured); `None` where it is left out.
    pub path: Option<&'static str>,
    /// What the policies at the destination say; `None` where nobody asks them.
    pub policy: Option<authz::Explanation>,
    /// What comes of it there; `None` where it is left out.
    pub conclusion: Option<Conclusion>,
}

/// What is being explained.
pub(super) struct Dialled<'a> {
    pub(super) mesh: &'a Mesh,
    pub(super) node: &'a dyn Node,
    pub(super) source: &'a Source,
    pub(super) balance: &'a dyn Balance,
}

/// Where it led so far.
#[derive(Default)]
pub(super) struct Reached {
    pub(super) endpoints: Vec<EndpointStep>,
    pub(super) omitted: usize,
    /// Why there is no endpoint.
    nowhere: Option<Conclusion>,
}

impl Reached {
    pub(super) fn conclude(&mut self, conclusion: Conclusion) {
        self.nowhere.get_or_insert(conclusion);
    }

    fn push(&mut self, step: impl FnOnce() -> EndpointStep) {
        if self.endpoints.len() < MAX_ENDPOINTS {
            self.endpoints.push(step());
        } else {
            self.omitted += 1;
        }
    }

    /// One answer out of those of the endpoints.
    pub(super) fn conclusion(&mut self, destination: &Destination) -> Conclusion {
        let mut answers = self.endpoints.iter().filter_map(|step| step.conclusion.as_ref());
        let Some(first) = answers.next() else {
            return self.nowhere.take().unwrap_or_else(|| {
                Conclusion::unreachable(Reason::NoHealthyEndpoint, "it leads nowhere", Vec::new())
            });
        };
        if answers.all(|answer| answer.verdict == first.verdict && answer.reason == first.reason) {
            return first.clone();
        }
        let all: Vec<_> = self
            .endpoints
            .iter()
            .filter_map(|step| step.conclusion.as_ref())
            .collect();
        let allowed = all
            .iter()
            .filter(|answer| answer.verdict == Verdict::Allow)
            .count();
        let refusal = all.iter().find(|answer| answer.verdict != Verdict::Allow);
        let name = destination
            .service
            .as_ref()
            .map_or_else(String::new, |service| format!(" of {}", service.hostname));
        let mut changes: Vec<String> = Vec::new();
        for change in all.iter().flat_map(|answer| &answer.changes) {
            if !changes.contains(change) {
                changes.push(change.clone());
            }
        }
        Conclusion {
            verdict: if allowed == 0 {
                Verdict::Deny
            } else {
                Verdict::Mixed
            },
            reason: refusal.map_or(Reason::Ok, |answer| answer.reason),
            text: format!("{allowed} of {} endpoints{name} let it in", all.len()),
            changes,
        }
    }
}

impl Dialled<'_> {
    /// Everything one address may lead to.
    pub(super) fn explain(&self, capture: &Capture, address: SocketAddr, reached: &mut Reached) {
        match (self.mesh.service_by_vip(address.ip()), self.source) {
            (Some(service), Source::Pod(source)) if capture.captured => {
                self.captured_service(capture, source, service, address, reached);
            }
            (Some(service), _) => self.plain_service(capture, service, address, reached),
            (None, _) => reached.push(|| self.pod_or_outside(capture, address)),
        }
    }

    /// Asks the router again and again, each answer counted as tried: what it answers is what the data path may choose.
    fn captured_service(
        &self,
        capture: &Capture,
        source: &Workload,
        service: &Arc<Service>,
        address: SocketAddr,
        reached: &mut Reached,
    ) {
        let mut tried = Vec::new();
        let nowhere = loop {
            match self.next(source, address, &tried) {
                Ok(target) if tried.len() < service.endpoints.len() => {
                    tried.push(target.address());
                    reached.push(|| self.arrival(capture, &target));
                }
                Ok(_) => break None,
                Err(error) => break Some(error),
            }
        };
        for endpoint in &service.endpoints {
            let target = endpoint.target_port(address.port());
            let at = SocketAddr::new(endpoint.address, target.unwrap_or(address.port()));
            if !tried.contains(&at) {
                let why = left_out(service, endpoint, source, address);
                reached.push(|| self.passed_over(endpoint, at, why));
            }
        }
        if let Some(error) = nowhere.filter(|_| tried.is_empty()) {
            reached.conclude(verdict::of_route(&error));
        }
    }

    /// What the router would choose next.
    fn next(
        &self,
        source: &Workload,
        destination: SocketAddr,
        tried: &[SocketAddr],
    ) -> Result<Target, RouteError> {
        let client = self.source.address_towards(destination.ip());
        let dialled = route::Dialled {
            source,
            client: client.unwrap_or(destination.ip()),
            destination,
            draws: [0, 0],
            tried,
            picked: None,
        };
        route::outbound(self.mesh, &dialled, self.balance).map(|route| route.target)
    }

    /// Whatever routes Services on the source's node chooses; the mesh only meets the connection at the destination.
    fn plain_service(
        &self,
        capture: &Capture,
        service: &Arc<Service>,
        address: SocketAddr,
        reached: &mut Reached,
    ) {
        let port = address.port();
        if service.port(port).is_none() {
            let service = service.clone();
            return reached.conclude(verdict::of_route(&RouteError::UnknownServicePort {
                service,
                port,
            }));
        }
        let same_family = |endpoint: &&Endpoint| endpoint.address.is_ipv4() == address.is_ipv4();
        let before = reached.endpoints.len();
        for endpoint in service
            .endpoints
            .iter()
            .filter(|e| e.is_ready())
            .filter(same_family)
        {
            if let Some(target) = endpoint.target_port(port) {
                let at = SocketAddr::new(endpoint.address, target);
                reached.push(|| self.pod_or_outside(capture, at));
            }
        }
        if reached.endpoints.len() == before {
            let service = service.clone();
            let error = RouteError::NoHealthyEndpoint {
                service,
                port,
                tried: 0,
            };
            reached.conclude(verdict::of_route(&error));
        }
    }

    fn pod_or_outside(&self, capture: &Capture, address: SocketAddr) -> EndpointStep {
        let target = match self.mesh.workload_by_address(address.ip()) {
            Some(workload) => Target::Workload {
                workload: workload.clone(),
                address,
            },
            None => Target::Passthrough { address },
        };
        self.arrival(capture, &target)
    }

    fn passed_over(&self, endpoint: &Endpoint, address: SocketAddr, why: String) -> EndpointStep {
        let workload = endpoint.workload.as_ref().and_then(|uid| self.mesh.workload(uid));
        EndpointStep {
            node: endpoint.node.as_ref().map(ToString::to_string),
            left_out: Some(why),
            ..self.step(address, workload.map(AsRef::as_ref))
        }
    }

    /// One place where it may end.
    fn arrival(&self, capture: &Capture, target: &Target) -> EndpointStep {
        let address = target.address();
        let workload = match target {
            Target::Workload { workload, .. } => Some(workload.as_ref()),
            Target::Passthrough { .. } => None,
        };
        let mut step = self.step(address, workload);
        let (path, policy, conclusion) = if capture.captured {
            self.by_the_agent(workload, address)
        } else {
            self.in_plaintext(capture, workload, address)
        };
        if matches!(path, "same_node" | "hbone") {
            step.identity = workload.map(|workload| workload.identity.to_string());
        }
        step.path = Some(path);
        step.policy = policy;
        step.conclusion = Some(conclusion);
        step
    }

    /// As `outbound.rs` goes about a captured connection.
    fn by_the_agent(
        &self,
        workload: Option<&Workload>,
        address: SocketAddr,
    ) -> (&'static str, Option<authz::Explanation>, Conclusion) {
        let in_mesh = workload.filter(|workload| workload.protocol == Protocol::Hbone);
        let (Some(destination), Source::Pod(source)) = (in_mesh, self.source) else {
            let text = "the destination is not in the mesh: no policy of Tramline is asked";
            return ("passthrough", None, Conclusion::allow(text));
        };
        let path = if destination.node == source.node {
            "same_node"
        } else {
            "hbone"
        };
        if admit::is_reserved(address.port()) {
            let text = format!("port {} leads to the agent itself", address.port());
            let conclusion = Conclusion::unreachable(Reason::CaptureLoop, text, Vec::new());
            return (path, None, conclusion);
        }
        if let Some(why) = self.not_enrolled(destination) {
            let text = format!("nobody answers tunnels for the destination: {}", why.text);
            let conclusion =
                Conclusion::unreachable(Reason::ConnectRefused, text, why.fix.into_iter().collect());
            return ("hbone", None, conclusion);
        }
        let Some(from) = self.source.address_towards(address.ip()) else {
            return (path, None, self.wrong_family(address));
        };
        let policy = authz::explain(
            self.mesh,
            &authz::Connection {
                source: Some(&source.identity),
                source_address: from,
                destination,
                destination_address: address,
            },
        );
        let conclusion = Conclusion::of(&policy);
        (path, Some(policy), conclusion)
    }

    /// As `common/src/steer.rs` and `inbound.rs` go about plaintext.
    fn in_plaintext(
        &self,
        capture: &Capture,
        workload: Option<&Workload>,
        address: SocketAddr,
    ) -> (&'static str, Option<authz::Explanation>, Conclusion) {
        let plain = |conclusion| ("plaintext", None, conclusion);
        if capture.leads_nowhere_else() {
            return plain(Conclusion::allow("the mesh has no part in it"));
        }
        let Some(destination) = workload.filter(|workload| workload.protocol == Protocol::Hbone) else {
            return plain(Conclusion::allow(
                "neither end is in the mesh for this connection",
            ));
        };
        if let Some(why) = self.not_enrolled(destination) {
            let text = format!("nothing protects the destination: {}", why.text);
            return plain(Conclusion::allow(text));
        }
        let port = address.port();
        if port == HBONE_PORT {
            let text = "port 15008 answers nothing but mutual TLS of the mesh";
            return plain(Conclusion {
                verdict: Verdict::Deny,
                reason: Reason::TlsFailure,
                text: text.into(),
                changes: Vec::new(),
            });
        }
        if destination.capture.inbound_ports.contains(&port) {
            let text = format!(
                "the destination's annotation tramline.dev/exclude-inbound-ports has {port}: no policy is asked"
            );
            return plain(Conclusion::allow(text));
        }
        let Some(from) = self.source.address_towards(address.ip()) else {
            return plain(self.wrong_family(address));
        };
        let policy = authz::explain(
            self.mesh,
            &authz::Connection {
                source: None,
                source_address: from,
                destination,
                destination_address: address,
            },
        );
        let mut conclusion = Conclusion::of(&policy);
        // A source that only has to stop being left alone needs no advice to be enrolled.
        if let (Reason::MtlsRequired, Some(fix), Some(first)) =
            (conclusion.reason, &capture.fix, conclusion.changes.first_mut())
        {
            *first = format!("let the source prove its identity: {fix}");
        }
        ("plaintext", Some(policy), conclusion)
    }

    fn not_enrolled(&self, workload: &Workload) -> Option<Capture> {
        matches!(
            self.node.enrolment(workload),
            Enrolment::Pending | Enrolment::Failed(_)
        )
        .then(|| capture::capture(self.node, workload))
    }

    fn step(&self, address: SocketAddr, workload: Option<&Workload>) -> EndpointStep {
        EndpointStep {
            address,
            pod: workload.map(name_of),
            node: workload.map(|workload| workload.node.to_string()),
            identity: None,
            left_out: None,
            connections: self.balance.load(address),
            avoided: self.balance.is_avoided(address),
            path: None,
            policy: None,
            conclusion: None,
        }
    }

    fn wrong_family(&self, address: SocketAddr) -> Conclusion {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let text = format!("the source has no {family} address to dial {} from", address.ip());
        Conclusion::unreachable(Reason::ConnectUnreachable, text, Vec::new())
    }
}

fn left_out(service: &Service, endpoint: &Endpoint, source: &Workload, dialled: SocketAddr) -> String {
    if endpoint.address.is_ipv4() != dialled.is_ipv4() {
        "another address family than the one dialled".into()
    } else if endpoint.target_port(dialled.port()).is_none() {
        format!("does not serve port {}", dialled.port())
    } else if endpoint.readiness == Readiness::NotReady {
        "not ready".into()
    } else if service.node_local && endpoint.node.as_ref() != Some(&source.node) {
        format!("not on node {}, and internalTrafficPolicy is Local", source.node)
    } else if endpoint.readiness == Readiness::Draining {
        "terminating, and others are ready".into()
    } else {
        "others come first".into()
    }
}
