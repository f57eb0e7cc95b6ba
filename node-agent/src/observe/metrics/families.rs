//! Every metric of the agent, by name; `docs/METRICS.md` is made from this page and a test compares them.

use super::labels::TCP_LABELS;

/// What a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One metric: a name, what it means, and the labels it always has.
#[derive(Debug)]
pub struct Family {
    /// Without the `_total` that counters get.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// One line for people.
    pub help: &'static str,
    /// In the order in which values are given.
    pub labels: &'static [&'static str],
}

impl Family {
    /// The name as it is scraped.
    pub fn exposed_name(&self) -> String {
        match self.kind {
            Kind::Counter => format!("{}_total", self.name),
            Kind::Gauge => self.name.to_owned(),
        }
    }
}

macro_rules! families {
    ($($ident:ident = $kind:ident $name:literal $labels:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $ident: Family =
            Family { name: $name, kind: Kind::$kind, help: $help, labels: $labels };)*

        /// Every metric, in the order in which they are exposed and documented.
        pub const ALL: &[&Family] = &[$(&$ident),*];
    };
}

families! {
    TCP_OPENED = Counter "istio_tcp_connections_opened" &TCP_LABELS,
        "TCP connections established";
    TCP_CLOSED = Counter "istio_tcp_connections_closed" &TCP_LABELS,
        "Established TCP connections that ended; response_flags says how";
    TCP_SENT = Counter "istio_tcp_sent_bytes" &TCP_LABELS,
        "Bytes of responses, towards the source, whichever side reports (as in Istio)";
    TCP_RECEIVED = Counter "istio_tcp_received_bytes" &TCP_LABELS,
        "Bytes of requests, towards the destination, whichever side reports (as in Istio)";
    TCP_FAILED = Counter "istio_tcp_connections_failed" &TCP_LABELS,
        "TCP connections that were never established; response_flags says why";
    CONNECTIONS_REFUSED = Counter "tramline_connections_refused" &["reporter", "reason"],
        "Connections that ended with a verdict other than allow, by the reason in the access log";
    CONNECTIONS_OPEN = Gauge "tramline_connections_open" &["reporter"],
        "Connections the agent carries at this moment";
    CONNECTIONS_UNLISTED = Counter "tramline_connections_unlisted" &[],
        "Connections that found the table of live connections full: carried and logged, but not listed";
    METRIC_LABEL_SETS = Gauge "tramline_metric_label_sets" &[],
        "Distinct label sets of the istio_tcp metrics";
    METRIC_LABEL_SETS_OVERFLOWED = Counter "tramline_metric_label_sets_overflowed" &[],
        "Times the bound on label sets was reached and a connection was counted under the label value other";
    ACCESS_LOG_WRITTEN = Counter "tramline_access_log_written" &[],
        "Access log lines written";
    ACCESS_LOG_DROPPED = Counter "tramline_access_log_dropped" &[],
        "Access log lines lost because the reader was too slow or a write failed";
    EBPF_EVENTS = Counter "tramline_ebpf_events" &["event"],
        "What the eBPF programs counted, drops and full maps included";
    EBPF_MAP_ENTRIES = Gauge "tramline_ebpf_map_entries" &["map"],
        "Entries in an eBPF map";
    EBPF_MAP_CAPACITY = Gauge "tramline_ebpf_map_capacity" &["map"],
        "Entries an eBPF map can hold";
    TUNNEL_HANDSHAKES = Counter "tramline_tunnel_handshakes" &["result"],
        "Tunnel handshakes (TLS and HTTP/2), as client and as server, by result";
    TUNNEL_CONNECTIONS = Gauge "tramline_tunnel_connections" &["role"],
        "Tunnel connections open at this moment";
    TUNNEL_STREAMS = Gauge "tramline_tunnel_streams" &[],
        "Application connections inside tunnels at this moment, both roles";
    CERTIFICATE_EXPIRY = Gauge "tramline_certificate_expiry_timestamp_seconds" &["identity"],
        "When a workload certificate expires, in seconds since 1970";
    CONFIG_GENERATION = Gauge "tramline_config_generation" &[],
        "Generation of the configuration in use";
    CONFIG_ERRORS = Gauge "tramline_config_errors" &[],
        "Objects of the latest configuration that were refused";
    ENROLLED_PODS = Gauge "tramline_enrolled_pods" &[],
        "Pods of this node whose traffic the agent handles";
    ENROLMENT_FAILURES = Counter "tramline_enrolment_failures" &[],
        "Attempts to enrol a pod that failed";
    READY = Gauge "tramline_ready" &["check"],
        "Readiness checks: 1 passed, 0 failed";
    BUILD_INFO = Gauge "tramline_build_info" &["version", "commit"],
        "Always 1; the labels say which build runs";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" &[],
        "Open file descriptors of the agent";
    PROCESS_MAX_FDS = Gauge "process_max_fds" &[],
        "Limit on open file descriptors";
    PROCESS_RESIDENT_MEMORY = Gauge "process_resident_memory_bytes" &[],
        "Resident memory of the agent";
    PROCESS_CPU = Counter "process_cpu_seconds" &[],
        "Processor time of the agent, user and system";
    PROCESS_THREADS = Gauge "process_threads" &[],
        "Threads of the agent";
}
