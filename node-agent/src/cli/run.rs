//! The settings of the agent: `tramline run`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args};
use tramline_core::cluster::ClusterName;
use tramline_core::identity::TrustDomain;
use tramline_core::mesh::MeshSettings;

use super::{DEFAULT_BPFFS, DEFAULT_STATE_DIR, duration};
use crate::observe::access_log;
use crate::observe::logging::LogFormat;

/// Everything `tramline run` can be told. A flag wins over its environment variable, that over the file of `--config`.
#[derive(Debug, Clone, Args)]
pub struct RunConfig {
    /// File with settings (TOML or YAML, keys are the flags' names); flags and environment win over it
    #[arg(long, value_name = "FILE", env = "TRAMLINE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Name of this node, as in the pods' spec.nodeName
    #[arg(long, value_name = "NAME", env = "TRAMLINE_NODE")]
    pub node: String,

    /// Directory of Kubernetes manifests to read and watch
    #[arg(long, value_name = "DIR", env = "TRAMLINE_CONFIG_DIR")]
    pub config_dir: PathBuf,

    /// Directory for what must outlive the agent, such as the embedded CA
    #[arg(long, value_name = "DIR", env = "TRAMLINE_STATE_DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,

    /// Trust domain of the workloads' SPIFFE identities
    #[arg(
        long,
        value_name = "NAME",
        env = "TRAMLINE_TRUST_DOMAIN",
        default_value = "cluster.local"
    )]
    pub trust_domain: String,

    /// Trust domain that counts as this mesh's own, as Istio's trustDomainAliases: in policies, and of peers that a trusted root
    /// has signed; repeatable
    #[arg(long, value_name = "NAME", env = "TRAMLINE_TRUST_DOMAIN_ALIAS", action = ArgAction::Append,
        value_delimiter = ',', value_parser = trust_domain)]
    pub trust_domain_alias: Vec<TrustDomain>,

    /// Namespace whose policies hold for the whole mesh, as Istio's rootNamespace
    #[arg(long, value_name = "NAME", env = "TRAMLINE_ROOT_NAMESPACE",
        default_value = MeshSettings::DEFAULT_ROOT_NAMESPACE, value_parser = namespace)]
    pub root_namespace: String,

    /// Name of this cluster in telemetry, as Istio's clusterID; other agents are told it, nothing is decided by it
    #[arg(long, value_name = "NAME", env = "TRAMLINE_CLUSTER_ID", default_value_t)]
    pub cluster_id: ClusterName,

    /// cgroup2 directory to attach at [default: the host's cgroup2 root, found and proven]
    #[arg(long, value_name = "DIR", env = "TRAMLINE_CGROUP_ROOT")]
    pub cgroup_root: Option<PathBuf>,

    /// BPF file system for pinned maps and links
    #[arg(long, value_name = "DIR", env = "TRAMLINE_BPFFS", default_value = DEFAULT_BPFFS)]
    pub bpffs: PathBuf,

    /// cgroup2 directory of the kubelet: its health checks then reach pods that refuse plaintext
    #[arg(long, value_name = "DIR", env = "TRAMLINE_KUBELET_CGROUP")]
    pub kubelet_cgroup: Option<PathBuf>,

    /// proc file system of the node, writable below sys/net: a container's own is read-only there
    #[arg(long, value_name = "DIR", env = "TRAMLINE_PROC", default_value = "/proc")]
    pub proc: PathBuf,

    /// Name of this agent among several on one machine; names its pins
    #[arg(long, value_name = "NAME", env = "TRAMLINE_INSTANCE", default_value = "default", value_parser = instance)]
    pub instance: String,

    /// Admin socket to answer on; the global `--admin-socket`.
    #[arg(skip)]
    pub admin_socket: PathBuf,

    /// Address of /metrics, /livez and /readyz; 0 for none
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "TRAMLINE_METRICS_ADDRESS",
        default_value = "127.0.0.1:15020"
    )]
    pub metrics_address: MetricsAddress,

    /// Access log: stdout, off, or a file
    #[arg(
        long,
        value_name = "stdout|off|PATH",
        env = "TRAMLINE_ACCESS_LOG",
        default_value = "stdout"
    )]
    pub access_log: access_log::Destination,

    /// Format of the access log
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TRAMLINE_ACCESS_LOG_FORMAT",
        default_value = "json"
    )]
    pub access_log_format: access_log::Format,

    /// Log level: error, warn, info, debug, trace, or MODULE=LEVEL,...
    #[arg(
        long,
        value_name = "LEVEL",
        env = "TRAMLINE_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,

    /// Format of the log on standard error
    #[arg(
        long,
        value_name = "FORMAT",
        env = "TRAMLINE_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Take over from an agent of this instance that runs; it ends its connections, then itself when told
    #[arg(long, value_name = "BOOL", env = "TRAMLINE_TAKEOVER", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub takeover: bool,

    /// Longest wait for open connections on SIGTERM, once another agent has taken over
    #[arg(long, value_name = "DURATION", env = "TRAMLINE_DRAIN_TIMEOUT", default_value = "60s",
        value_parser = duration::parse)]
    pub drain_timeout: Duration,

    /// Worker threads of the data plane [default: one per processor]
    #[arg(long, value_name = "COUNT", env = "TRAMLINE_WORKERS")]
    pub workers: Option<NonZeroUsize>,

    /// PEM file of roots to trust beside the one that signs, watched
    #[arg(long, value_name = "FILE", env = "TRAMLINE_TRUST_BUNDLE")]
    pub trust_bundle: Option<PathBuf>,

    /// PEM file of certificate revocation lists, watched
    #[arg(long, value_name = "FILE", env = "TRAMLINE_CRL")]
    pub crl: Option<PathBuf>,

    /// Lifetime of workload certificates, 10s to 90d; renewed at half of it
    #[arg(long, value_name = "DURATION", env = "TRAMLINE_CERTIFICATE_TTL", default_value = "24h",
        value_parser = certificate_ttl)]
    pub certificate_ttl: Duration,
}

/// Where metrics and health are served, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAddress(pub Option<SocketAddr>);

impl FromStr for MetricsAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "0" {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| format!("{text:?} is neither IP:PORT nor 0"))?;
        Ok(Self(Some(address)))
    }
}

/// The name becomes part of a path.
fn instance(name: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        Ok(name.to_owned())
    } else {
        Err("1 to 64 of a-z, 0-9 and -".to_owned())
    }
}

/// A name as Kubernetes allows it (RFC 1123, "label").
pub(super) fn namespace(name: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
    {
        Ok(name.to_owned())
    } else {
        Err("1 to 63 of a-z, 0-9 and -, neither beginning nor ending with -".to_owned())
    }
}

fn trust_domain(name: &str) -> Result<TrustDomain, String> {
    TrustDomain::new(name).map_err(|error| error.to_string())
}

/// Shorter than 10 s leaves clocks and renewals no room, longer than 90 days is no short-lived certificate.
fn certificate_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration::parse(text)?;
    let allowed = Duration::from_secs(10)..=Duration::from_secs(90 * 86_400);
    if allowed.contains(&ttl) {
        Ok(ttl)
    } else {
        Err("between 10s and 90d".to_owned())
    }
}
