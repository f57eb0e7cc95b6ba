//! What would happen to a connection, and why: capture, route and policy, asked of the functions that the data path asks.
//!
//! Says what the mesh does. Whether an application listens, and whether the network lets packets through, it cannot know.

mod capture;
mod path;
mod resolve;
mod verdict;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::Serialize;
use thiserror::Error;

pub use capture::{Capture, capture};
pub use path::EndpointStep;
pub use resolve::{Destination, resolve};
pub use verdict::{Conclusion, Verdict};

use crate::mesh::Mesh;
use crate::route::{Alike, Balance};
use crate::service::Service;
use crate::workload::{Workload, WorkloadUid};

/// Endpoints of one Service that are explained one by one.
const MAX_ENDPOINTS: usize = 32;

/// What the agent knows beyond the snapshot.
pub trait Node {
    /// Whether the connections of an enrolled workload are really captured.
    fn enrolment(&self, workload: &Workload) -> Enrolment;

    /// What the agent knows of endpoints when this workload dials.
    fn balance<'a>(&'a self, source: &'a WorkloadUid) -> Box<dyn Balance + 'a>;

    /// The class of an address that is never captured, such as `loopback`.
    fn never_captured(&self, address: IpAddr) -> Option<&'static str>;
}

/// How far the enrolment of a workload got that the configuration enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolment {
    /// Its connections are captured.
    Done,
    /// Another node's agent captures it; this one cannot see whether.
    Elsewhere,
    /// Not yet.
    Pending,
    /// It failed, and is tried again.
    Failed(String),
}

/// Who dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A pod.
    Pod(Arc<Workload>),
    /// An address that is no pod's: outside the mesh, in plaintext.
    Outside(IpAddr),
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuestionError {
    /// No such pod.
    #[error("no pod {0} is known to this agent; `tramline workloads` lists them")]
    NoPod(String),
    /// Not a way to write a source.
    #[error("{0:?} is neither NAMESPACE/POD nor an IP address")]
    NotASource(String),
    /// Not a way to write a destination.
    #[error("{0:?} is not HOST:PORT; HOST is a Service, NAMESPACE/POD or an IP address, IPv6 in brackets")]
    NotADestination(String),
    /// No such Service.
    #[error("no Service {0} is known to this agent; `tramline services` lists them")]
    NoService(String),
    /// A short name, and nobody to say in which namespace.
    #[error("{0:?} needs its namespace, as in {0}.NAMESPACE: the source is no pod")]
    NoNamespace(String),
    /// The pod has no address to dial.
    #[error("pod {0} has no address yet")]
    NoAddress(String),
}

impl Source {
    /// Reads `NAMESPACE/POD` or an IP address; one that is a pod's stands for the pod.
    ///
    /// # Errors
    /// Anything else, and pods that the snapshot does not hold.
    pub fn parse(mesh: &Mesh, text: &str) -> Result<Self, QuestionError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            return Ok(match mesh.workload_by_address(address) {
                Some(workload) => Self::Pod(workload.clone()),
                None => Self::Outside(address),
            });
        }
        match text.split_once('/') {
            Some((namespace, name)) => resolve::pod(mesh, namespace, name).map(Self::Pod),
            None => Err(QuestionError::NotASource(text.into())),
        }
    }

    /// The pod, if it is one.
    pub fn pod(&self) -> Option<&Arc<Workload>> {
        match self {
            Self::Pod(workload) => Some(workload),
            Self::Outside(_) => None,
        }
    }

    /// The address it dials an address of this family from.
    fn address_towards(&self, destination: IpAddr) -> Option<IpAddr> {
        let fits = |address: &IpAddr| address.is_ipv4() == destination.is_ipv4();
        match self {
            Self::Pod(workload) => workload.addresses.iter().copied().find(fits),
            Self::Outside(address) => Some(*address).filter(fits),
        }
    }
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Who dials.
    pub source: SourceStep,
    /// Whether the agent of its node gets the connection.
    pub capture: Capture,
    /// Where the name and port lead.
    pub destination: DestinationStep,
    /// Where the connection may end, in the order in which they are tried when others fail; those that are left out
    /// last. One for a destination that is no Service.
    pub endpoints: Vec<EndpointStep>,
    /// Endpoints beyond the bound of one explanation.
    pub endpoints_omitted: usize,
    /// What comes of it.
    #[serde(flatten)]
    pub conclusion: Conclusion,
}

/// Who dials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceStep {
    /// `NAMESPACE/NAME` of the pod; `None` outside the mesh.
    pub pod: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod's node.
    pub node: Option<String>,
    /// What it proves to others; `None` in plaintext.
    pub identity: Option<String>,
}

/// Where the name and port lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DestinationStep {
    /// What is dialled: one address, or for a headless Service those of its pods.
    pub addresses: Vec<SocketAddr>,
    /// Host name of the Service.
    pub service: Option<String>,
}

/// Explains one connection.
pub fn explain(mesh: &Mesh, node: &dyn Node, source: &Source, destination: &Destination) -> Explanation {
    let balance = source.pod().map(|workload| node.balance(&workload.uid));
    let dialled = path::Dialled {
        mesh,
        node,
        source,
        balance: balance.as_deref().unwrap_or(&Alike),
    };
    let first = destination.addresses.first().copied();
    let capture = match first {
        Some(address) => capture::of_connection(mesh, node, source, address),
        None => capture::of_source(mesh, node, source),
    };
    let mut reached = path::Reached::default();
    for address in &destination.addresses {
        // What is excluded depends on the address: each one of a headless Service has its own answer.
        let capture = capture::of_connection(mesh, node, source, *address);
        dialled.explain(&capture, *address, &mut reached);
    }
    if let Some(service) = destination.service.as_deref().filter(|_| first.is_none()) {
        reached.conclude(verdict::no_endpoint(service));
    }
    let conclusion = reached.conclusion(destination);
    Explanation {
        source: source_step(source, &capture),
        capture,
        destination: DestinationStep {
            addresses: destination.addresses.clone(),
            service: destination
                .service
                .as_ref()
                .map(|service| service.hostname.to_string()),
        },
        endpoints: reached.endpoints,
        endpoints_omitted: reached.omitted,
        conclusion,
    }
}

/// Who dials, as one answers who asks about a source alone.
pub fn source_step(source: &Source, capture: &Capture) -> SourceStep {
    match source {
        Source::Pod(workload) => SourceStep {
            pod: Some(name_of(workload)),
            addresses: workload.addresses.clone(),
            node: Some(workload.node.to_string()),
            identity: capture.captured.then(|| workload.identity.to_string()),
        },
        Source::Outside(address) => SourceStep {
            pod: None,
            addresses: vec![*address],
            node: None,
            identity: None,
        },
    }
}

fn name_of(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

fn name_of_service(service: &Service) -> String {
    format!("{}/{}", service.namespace, service.name)
}
