//! What is known about one connection, and how it ended.

use std::net::SocketAddr;
use std::sync::Arc;

use tramline_core::authz::Decision;
use tramline_core::cluster::ClusterName;
use tramline_core::identity::SpiffeId;
use tramline_core::reason::Reason;
use tramline_core::service::Service;
use tramline_core::trace::TraceId;
use tramline_core::workload::Workload;

/// Which side of the connection this agent stands at (Istio's `reporter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// At the workload that dialled.
    Source,
    /// At the workload that was dialled.
    Destination,
}

impl Reporter {
    /// Both, in the order of [`Reporter::index`].
    pub const ALL: [Self; 2] = [Self::Source, Self::Destination];

    /// Istio's label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// ztunnel's word for the same in the access log.
    pub const fn direction(self) -> &'static str {
        match self {
            Self::Source => "outbound",
            Self::Destination => "inbound",
        }
    }

    /// Position in [`Reporter::ALL`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Source => 0,
            Self::Destination => 1,
        }
    }
}

/// How the connection is protected (Istio's `connection_security_policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecurityPolicy {
    /// Both identities proven by certificates.
    MutualTls,
    /// Nothing proven.
    Unknown,
}

impl SecurityPolicy {
    /// Istio's label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Unknown => "unknown",
        }
    }
}

/// The way the bytes take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Through an mTLS tunnel between two agents.
    Hbone,
    /// Between two enrolled workloads of this node, inside this agent.
    SameNode,
    /// From an enrolled workload to a destination outside the mesh.
    Passthrough,
    /// From a client outside the mesh to an enrolled workload.
    Plaintext,
}

impl Path {
    /// Every path.
    pub const ALL: [Self; 4] = [Self::Hbone, Self::SameNode, Self::Passthrough, Self::Plaintext];

    /// Position in [`Path::ALL`].
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Hbone => 0,
            Self::SameNode => 1,
            Self::Passthrough => 2,
            Self::Plaintext => 3,
        }
    }

    /// The value in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hbone => "hbone",
            Self::SameNode => "same_node",
            Self::Passthrough => "passthrough",
            Self::Plaintext => "plaintext",
        }
    }
}

/// What the kernel measured of a connection that went from socket to socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelCarried {
    /// Smoothed round trip at its end, in microseconds.
    pub srtt_us: u32,
    /// Segments that the dialling side sent again.
    pub retransmits: u32,
}

/// What is known about a connection; fields that are learned later start as `None`.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Which side this agent stands at.
    pub reporter: Reporter,
    /// The way the bytes take.
    pub path: Path,
    /// How it is protected.
    pub security_policy: SecurityPolicy,
    /// The workload that dialled.
    pub source: Option<Arc<Workload>>,
    /// The client's address as the destination's application will see it.
    pub source_address: SocketAddr,
    /// The cluster that the other agent says the client is in; `None` where this agent knows by itself, or nobody says.
    pub claimed_cluster: Option<ClusterName>,
    /// The client's identity: proven (destination side), or the one presented (source side).
    pub source_identity: Option<SpiffeId>,
    /// The workload that was dialled.
    pub destination: Option<Arc<Workload>>,
    /// What this agent dials: the application, or the far agent's tunnel port.
    pub destination_address: SocketAddr,
    /// The address inside the tunnel (`:authority` of CONNECT), on [`Path::Hbone`].
    pub hbone_address: Option<SocketAddr>,
    /// What the client dialled; a Service address stays one.
    pub original_destination: SocketAddr,
    /// The destination's identity.
    pub destination_identity: Option<SpiffeId>,
    /// The Service that the client dialled.
    pub service: Option<Arc<Service>>,
    /// The same at both ends of a tunnel.
    pub trace: Option<TraceId>,
    /// What the kernel measured of a connection that it carried without an agent.
    pub kernel: Option<KernelCarried>,
    /// What would have been decided with the dry-run policies enforced; at the destination, where there are any.
    pub dry_run: Option<Arc<Decision>>,
}

impl ConnectionInfo {
    /// A connection to a workload of this node from a client that has proved nothing.
    pub fn plaintext(destination: Option<Arc<Workload>>, client: SocketAddr, dialled: SocketAddr) -> Self {
        Self {
            reporter: Reporter::Destination,
            path: Path::Plaintext,
            security_policy: SecurityPolicy::Unknown,
            source: None,
            source_address: client,
            claimed_cluster: None,
            source_identity: None,
            destination_identity: destination
                .as_ref()
                .map(|destination| destination.identity.clone()),
            destination,
            destination_address: dialled,
            hbone_address: None,
            original_destination: dialled,
            service: None,
            trace: None,
            kernel: None,
            dry_run: None,
        }
    }

    /// The clusters of source and destination, as far as they are known. What is configured is in `own`; of a source
    /// behind another agent that agent has the word.
    pub(super) fn clusters<'a>(&'a self, own: &'a ClusterName) -> [Option<&'a ClusterName>; 2] {
        let of = |workload: &Option<Arc<Workload>>| workload.as_ref().map(|_| own);
        let source = self.claimed_cluster.as_ref().or(of(&self.source));
        [source, of(&self.destination)]
    }
}

/// What the mesh had to say about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It was let through, however it ended.
    Allow,
    /// A policy refused it.
    Deny,
    /// It should have worked and did not.
    Fail,
}

impl Verdict {
    /// The verdict that a reason implies.
    pub fn of(reason: Reason) -> Self {
        match reason {
            Reason::Ok | Reason::ResetBySource | Reason::ResetByDestination | Reason::IdleTimeout => {
                Self::Allow
            }
            reason if reason.response_flags() == "DENY" => Self::Deny,
            _ => Self::Fail,
        }
    }

    /// The verdict of a policy's decision.
    pub fn of_decision(decision: &Decision) -> Self {
        if decision.is_allow() {
            Self::Allow
        } else {
            Self::Deny
        }
    }

    /// The value in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Fail => "fail",
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The stable code.
    pub reason: Reason,
    /// What the code does not say, such as an error text; may hold anything a peer sent.
    pub detail: Option<String>,
    /// The policy that decided, `NAMESPACE/NAME` with its rule.
    pub policy: Option<String>,
}

impl Outcome {
    /// An outcome with nothing to add.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            detail: None,
            policy: None,
        }
    }

    /// Adds what the code does not say.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the policy that decided.
    #[must_use]
    pub fn with_policy(mut self, policy: impl Into<String>) -> Self {
        self.policy = Some(policy.into());
        self
    }

    /// Allow, deny or fail.
    pub fn verdict(&self) -> Verdict {
        Verdict::of(self.reason)
    }
}

impl From<Reason> for Outcome {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}
