//! Every metric of the agent, by name; `docs/METRICS.md` is made from this page and a test compares them.

use super::labels::TCP_LABELS;

/// What kind of value a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, by how many were at most so long.
    Histogram,
}

/// One metric: a name, what it means, and the labels it always has.
#[derive(Debug)]
pub struct Family {
    /// Without the `_total` that counters get.
    pub name: &'static str,
    /// What kind of value it has.
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
            Kind::Gauge | Kind::Histogram => self.name.to_owned(),
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
    VERDICTS = Counter "tramline_verdicts" &["reporter", "verdict", "reason"],
        "Connections that ended, by the verdict and the reason in the access log";
    DRY_RUN = Counter "tramline_dry_run" &["verdict", "dry_run", "policy"],
        "Connections that ended where a dry-run policy applies, by their verdict, by what it would have been with those policies enforced, and by the policy that would have decided (- for none)";
    CONNECT_SECONDS = Histogram "tramline_connect_seconds" &["reporter", "path"],
        "Seconds from a connection's arrival at the agent to its other half being open, where that succeeded";
    CONNECTIONS_OPEN = Gauge "tramline_connections_open" &["reporter"],
        "Connections the agent carries at this moment";
    CONNECTIONS_UNLISTED = Counter "tramline_connections_unlisted" &[],
        "Connections that found the table of live connections full: carried and logged, but not listed";
    METRIC_LABEL_SETS = Gauge "tramline_metric_label_sets" &[],
        "Distinct label sets of the istio_tcp metrics";
    METRIC_LABEL_SETS_OVERFLOWED = Counter "tramline_metric_label_sets_overflowed" &[],
        "Times the bound on label sets was reached and a connection was counted under the label value other";
    METRIC_LABEL_SETS_EXPIRED = Counter "tramline_metric_label_sets_expired" &[],
        "Label sets of the istio_tcp metrics removed because no connection had used them for 15 minutes";
    ACCESS_LOG_WAITING = Gauge "tramline_access_log_waiting" &[],
        "Access log lines that wait to be written; 65,536 at most";
    ACCESS_LOG_WRITTEN = Counter "tramline_access_log_written" &[],
        "Access log lines written";
    ACCESS_LOG_DROPPED = Counter "tramline_access_log_dropped" &[],
        "Access log lines lost because the reader was too slow or a write failed";
    EBPF_EVENTS = Counter "tramline_ebpf_events" &["event"],
        "What the eBPF programs counted, drops and full maps included";
    KERNEL_VERDICTS_REFUSED = Counter "tramline_kernel_verdicts_refused" &["reason"],
        "Decisions that could not be left to the kernel: not_proven (the way to the pod is not known to stay on this node) or failed (no room)";
    EBPF_MAP_ENTRIES = Gauge "tramline_ebpf_map_entries" &["map"],
        "Entries in an eBPF map";
    EBPF_MAP_CAPACITY = Gauge "tramline_ebpf_map_capacity" &["map"],
        "Entries an eBPF map can hold";
    TUNNEL_CONNECTS = Counter "tramline_tunnel_connects" &["reason"],
        "TCP connections dialled to other agents, by how the attempt ended: ok or why not";
    TUNNEL_CONNECT_SECONDS = Histogram "tramline_tunnel_connect_seconds" &[],
        "Seconds that TCP connections to other agents took to be established";
    TUNNEL_HANDSHAKES = Counter "tramline_tunnel_handshakes" &["role", "reason"],
        "Tunnel handshakes (TLS and HTTP/2) as client and as server, by how they ended: ok or why not";
    TUNNEL_HANDSHAKE_SECONDS = Histogram "tramline_tunnel_handshake_seconds" &["role"],
        "Seconds that tunnel handshakes (TLS and HTTP/2) took which succeeded";
    TUNNEL_CONNECTIONS = Gauge "tramline_tunnel_connections" &["role"],
        "Tunnel connections open at this moment";
    TUNNEL_STREAMS = Gauge "tramline_tunnel_streams" &[],
        "Application connections inside tunnels at this moment, both roles";
    TUNNEL_RELEASED = Counter "tramline_tunnel_released" &[],
        "Outbound tunnel connections closed because nothing had used them for long enough";
    TUNNEL_EVICTED = Counter "tramline_tunnel_evicted" &[],
        "Outbound tunnel connections cut because their source or destination workload left";
    TUNNEL_SUSPECTED = Counter "tramline_tunnel_suspected" &[],
        "Times the peer of an outbound tunnel connection fell silent and new streams went elsewhere";
    TUNNEL_LOST = Counter "tramline_tunnel_lost" &[],
        "Tunnel connections of both roles that ended because a PING was not answered";
    TUNNEL_UNPROVEN = Gauge "tramline_tunnel_handshakes_in_flight" &[],
        "Connections of other agents whose handshake has not ended";
    TUNNEL_UNPROVEN_REFUSED = Counter "tramline_tunnel_handshakes_refused" &[],
        "Connections to port 15008 turned away because too many handshakes were in flight";
    TUNNEL_BUFFERED = Gauge "tramline_tunnel_buffered_bytes" &[],
        "Bytes that tunnels hold for applications that do not read";
    TUNNEL_BUFFER_LIMIT = Gauge "tramline_tunnel_buffer_limit_bytes" &[],
        "Bytes that tunnels may hold for applications that do not read";
    TUNNEL_BUFFER_CUT = Counter "tramline_tunnel_buffer_cut" &[],
        "Streams cut because tunnels held as many bytes as they may; the reason is limit_reached";
    CERTIFICATES = Gauge "tramline_certificates" &[],
        "Workload certificates that the agent holds";
    CERTIFICATE_EARLIEST_EXPIRY = Gauge "tramline_certificate_earliest_expiry_timestamp_seconds" &[],
        "When the first of the workload certificates expires, in seconds since 1970";
    SERVICE_RETRIES = Counter "tramline_service_retries" &["result"],
        "Endpoints of a Service that failed with another one left: made, or out_of_budget";
    BALANCER_ENTRIES = Gauge "tramline_balancer_entries" &["table"],
        "Endpoints avoided after a failure (avoided) and with connections (loads), retry budgets in use (budgets), clients pinned by sessionAffinity (pins)";
    CERTIFICATE_EXPIRY = Gauge "tramline_certificate_expiry_timestamp_seconds" &["identity"],
        "When a workload certificate expires, in seconds since 1970; of the 1,000 that expire first";
    CERTIFICATES_ISSUED = Counter "tramline_certificates_issued" &["result"],
        "Attempts to make or renew a workload's certificate: made, or failed";
    AUTHORITY_EXPIRY = Gauge "tramline_authority_expiry_timestamp_seconds" &[],
        "When the authority that signs, or one above it, expires, in seconds since 1970: no certificate is made after it";
    TRUST_READS = Counter "tramline_trust_reads" &["result"],
        "Readings of the files that say who signs and whom to trust: taken, or refused with the last good one staying in force";
    TRUST_ERRORS = Gauge "tramline_trust_errors" &[],
        "Files that say who signs and whom to trust of which the last good reading is in force, not what they hold now";
    CONFIG_GENERATION = Gauge "tramline_config_generation" &[],
        "Generation of the configuration in use";
    CONFIG_FROM_LAST_GOOD = Gauge "tramline_config_from_last_good" &[],
        "1 while the configuration in use is the last good one of the state directory, since the directory was refused at start";
    CONFIG_LAST_SUCCESS = Gauge "tramline_config_last_success_timestamp_seconds" &[],
        "When a configuration last came into force, in seconds since 1970";
    CONFIG_UPDATES = Counter "tramline_config_updates" &["result"],
        "Configurations read since start: applied, or refused with the one before staying in force";
    CONFIG_ERRORS = Gauge "tramline_config_errors" &[],
        "Errors of the latest configuration; 0 when it is in use";
    ENROLLED_PODS = Gauge "tramline_enrolled_pods" &[],
        "Pods of this node whose traffic the agent handles";
    PODS_NOT_ENROLLED = Gauge "tramline_pods_not_enrolled" &[],
        "Pods of this node that should be enrolled and cannot be; tramline workloads says why";
    ENROLMENT_FAILURES = Counter "tramline_enrolment_failures" &[],
        "Attempts to enrol a pod that failed";
    LATE_ENROLMENTS = Counter "tramline_late_enrolments" &[],
        "Pods that had connections open when they were enrolled: those connections go on without the mesh";
    UNCAPTURED = Gauge "tramline_connections_uncaptured" &[],
        "Connections found open when pods were enrolled and not ended by the agent since";
    SHED = Counter "tramline_connections_shed" &[],
        "Connections turned away at the door because the agent or their pod had too many";
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
