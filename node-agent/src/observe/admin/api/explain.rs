//! What `/explain` and `/capture` answer: the core's explanation, as the command line reads it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// `/capture`: whether a pod's connections are captured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptureReport {
    /// The agent's node: it knows of other nodes what the configuration says.
    pub agent_node: String,
    /// Generation of the configuration that was asked.
    pub generation: u64,
    /// The pod.
    pub source: ExplainSource,
    /// The answer.
    pub capture: CaptureAnswer,
    /// What the pod keeps out of the mesh.
    pub exclusions: Exclusions,
}

/// What a pod's annotations keep out of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Exclusions {
    /// `tramline.dev/exclude-outbound-ports`.
    pub outbound_ports: Vec<u16>,
    /// `tramline.dev/exclude-outbound-cidrs`.
    pub outbound_cidrs: Vec<String>,
    /// `tramline.dev/exclude-inbound-ports`.
    pub inbound_ports: Vec<u16>,
}

/// `/explain`: what would happen to a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainReport {
    /// The agent's node: it knows of other nodes what the configuration says.
    pub agent_node: String,
    /// Generation of the configuration that was asked.
    pub generation: u64,
    /// The rest.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// The answer about one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who dials.
    pub source: ExplainSource,
    /// Whether the connection is captured.
    pub capture: CaptureAnswer,
    /// Where the name leads.
    pub destination: ExplainDestination,
    /// Where the connection may end.
    pub endpoints: Vec<ExplainEndpoint>,
    /// Endpoints beyond the bound of one explanation.
    pub endpoints_omitted: usize,
    /// What comes of it.
    #[serde(flatten)]
    pub conclusion: Conclusion,
}

/// Who dials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainSource {
    /// `NAMESPACE/NAME` of the pod.
    pub pod: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod's node.
    pub node: Option<String>,
    /// The identity it proves.
    pub identity: Option<String>,
}

/// Whether a connection is captured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaptureAnswer {
    /// Whether it is.
    pub captured: bool,
    /// `captured`, or why not.
    pub code: String,
    /// The same for a person.
    pub text: String,
    /// What would make it captured.
    pub fix: Option<String>,
}

/// Where a destination leads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainDestination {
    /// What is dialled.
    pub addresses: Vec<SocketAddr>,
    /// Host name of the Service.
    pub service: Option<String>,
}

/// One place where the connection may end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainEndpoint {
    /// Where the application listens.
    pub address: SocketAddr,
    /// `NAMESPACE/NAME` of its pod.
    pub pod: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// The identity it proves.
    pub identity: Option<String>,
    /// Why the Service does not send this connection there.
    pub left_out: Option<String>,
    /// Connections of this agent that are open to it or being opened.
    pub connections: u64,
    /// Whether it could not be reached just now, so that others are tried first.
    pub avoided: bool,
    /// `same_node`, `hbone`, `passthrough` or `plaintext`.
    pub path: Option<String>,
    /// What the policies there say.
    pub policy: Option<PolicyExplanation>,
    /// What comes of it there.
    pub conclusion: Option<Conclusion>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conclusion {
    /// `allow`, `deny`, `unreachable` or `mixed`.
    pub verdict: String,
    /// The reason code, as in the access log.
    pub reason: String,
    /// The same for a person.
    pub text: String,
    /// What would change it; several are alternatives.
    pub changes: Vec<String>,
}

/// Every policy and rule that was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyExplanation {
    /// What PeerAuthentication asks for.
    pub mtls: Option<MtlsStep>,
    /// The AuthorizationPolicies of the destination, in the order in which they are asked.
    pub policies: Vec<PolicyStep>,
    /// What they decide.
    pub decision: Decision,
    /// What they would decide if those with annotation `istio.io/dry-run` were enforced.
    pub dry_run: Option<Decision>,
}

/// Whether the destination takes plaintext.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MtlsStep {
    /// The workload's port.
    pub port: u16,
    /// Whether plaintext is refused there.
    pub strict: bool,
    /// `NAMESPACE/NAME` of the PeerAuthentication that says so.
    pub policy: Option<String>,
    /// The identity the source proves.
    pub identity: Option<String>,
    /// Whether the connection gets past this.
    pub passed: bool,
}

/// One AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyStep {
    /// `NAMESPACE/NAME`.
    pub policy: String,
    /// `ALLOW`, `DENY`, `CUSTOM` or `AUDIT`.
    pub action: String,
    /// Whether it can decide at all.
    pub enforced: bool,
    /// Whether it carries annotation `istio.io/dry-run`.
    pub dry_run: bool,
    /// To which workloads it applies.
    pub scope: Scope,
    /// Whether its turn came.
    pub asked: bool,
    /// Whether it is what decided.
    pub decides: bool,
    /// Index of its first rule that matches.
    pub matched: Option<usize>,
    /// Its rules.
    pub rules: Vec<RuleStep>,
}

/// To which workloads a policy applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All.
    Mesh,
    /// Those of its namespace.
    Namespace,
    /// Those with these labels.
    Selector(String),
    /// Those behind what `spec.targetRefs` names, which it closes.
    Target(String),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleStep {
    /// Index into `spec.rules`.
    pub rule: usize,
    /// Whether it matches.
    pub matched: bool,
    /// Every field it gives.
    pub fields: Vec<FieldStep>,
    /// What its need of HTTP, which nobody looks at, makes of it.
    pub note: Option<String>,
}

/// One field of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldStep {
    /// `from`, `to` or `when`.
    pub clause: String,
    /// Index of the entry.
    pub entry: usize,
    /// The field; `*` for an entry that asks for nothing.
    pub field: String,
    /// Whether the connection satisfies it.
    pub matched: bool,
    /// What the policy asks for.
    pub wanted: String,
    /// What the connection has.
    pub actual: Option<String>,
}

/// What the policies decide.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Whether the connection may pass.
    pub allowed: bool,
    /// The reason code.
    pub reason: String,
    /// `NAMESPACE/NAME` of the policy that decided.
    pub policy: Option<String>,
    /// Index of the rule that decided.
    pub rule: Option<usize>,
    /// The same for a person.
    pub text: String,
}
