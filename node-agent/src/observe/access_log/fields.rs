//! The fields of a line, for `docs/ACCESS_LOG.md`; a test compares them with what is written.

/// One field.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Whether every line of a connection has it.
    pub(super) always: bool,
    pub(super) meaning: &'static str,
}

const fn always(name: &'static str, meaning: &'static str) -> Field {
    Field {
        name,
        always: true,
        meaning,
    }
}

const fn known(name: &'static str, meaning: &'static str) -> Field {
    Field {
        name,
        always: false,
        meaning,
    }
}

/// In the order in which they are written.
pub(super) const FIELDS: [Field; 35] = [
    always(
        "time",
        "when the connection ended, UTC with milliseconds (RFC 3339)",
    ),
    always("start", "when it arrived at the agent"),
    always(
        "direction",
        "`outbound`: told by the agent of the client; `inbound`: by the agent of the server",
    ),
    known(
        "trace_id",
        "the same in the outbound and the inbound line of one connection (W3C Trace Context); none in plaintext from outside the mesh",
    ),
    always(
        "src.addr",
        "the client's address; port 0 where only the tunnel's is known",
    ),
    known("src.workload", "the client's pod"),
    known("src.namespace", "its namespace"),
    known(
        "src.cluster",
        "its cluster (`--cluster-id`); inbound from a tunnel as the client's agent says, which nothing proves",
    ),
    known(
        "src.identity",
        "its SPIFFE ID: proven if inbound, the one it shows if outbound",
    ),
    always(
        "dst.addr",
        "what the agent dials: the application, or port 15008 of the other agent",
    ),
    always(
        "dst.original",
        "what the client dialled; a Service's address stays one. Inbound from a tunnel: the target in the tunnel",
    ),
    known("dst.hbone_addr", "the target inside the tunnel"),
    known(
        "dst.service",
        "host name of the Service that the client dialled; inbound as the client's agent tells it, if the target is an endpoint of it",
    ),
    known("dst.workload", "the server's pod"),
    known("dst.namespace", "its namespace"),
    known("dst.cluster", "its cluster (`--cluster-id`)"),
    known("dst.identity", "its SPIFFE ID"),
    always("bytes_sent", "application bytes that the pod of this side sent"),
    always("bytes_recv", "application bytes that it received"),
    always("duration_ms", "from `start` to `time`"),
    known(
        "connect_ms",
        "from `start` until the other half was open, where it came to that",
    ),
    always(
        "path",
        "`hbone`: through a tunnel; `same_node`: between two pods of this node; `passthrough`: to a destination outside the mesh; `plaintext`: from outside the mesh",
    ),
    known(
        "carried_by",
        "`kernel`: from socket to socket, by a verdict of this agent; absent where the agent carried the bytes",
    ),
    known(
        "srtt_us",
        "smoothed round trip at the end in microseconds, where the kernel carried it",
    ),
    known(
        "retransmits",
        "segments that the client's side sent again, where the kernel carried it",
    ),
    always(
        "security",
        "`mutual_tls`: both identities are proven; `unknown`: not",
    ),
    always("verdict", "`allow`, `deny` (a policy) or `fail` (anything else)"),
    always("reason", "the code that docs/METRICS.md lists"),
    always("response_flags", "the same as Istio's flag"),
    known("policy", "the policy that decided"),
    known("detail", "what the code does not say, such as an error's text"),
    known(
        "dry_run",
        "`allow` or `deny`: what would have been decided with the policies annotated `istio.io/dry-run` enforced; inbound, where one applies to the server's pod, as the connection arrived",
    ),
    known("dry_run_policy", "the policy that would have decided"),
    known("dry_run_detail", "the same in words, with the rule"),
    known(
        "dropped",
        "alone with `time` in a line of its own: so many lines before this one are missing",
    ),
];
