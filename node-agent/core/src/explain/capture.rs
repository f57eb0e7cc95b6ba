//! Whether the agent gets a source's connections, and if not, why not.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use super::{Enrolment, Node, Source, name_of};
use crate::mesh::{MODE_LABEL, MODE_NONE, MODE_TRAMLINE, Mesh};
use crate::workload::Workload;

/// Whether a connection is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capture {
    /// Whether it is.
    pub captured: bool,
    /// `captured`, or why not; never changes once released.
    pub code: &'static str,
    /// The same for a person.
    pub text: String,
    /// What would make it captured, where that is the operator's choice.
    pub fix: Option<String>,
}

impl Capture {
    fn yes(text: String) -> Self {
        Self {
            captured: true,
            code: "captured",
            text,
            fix: None,
        }
    }

    fn no(code: &'static str, text: String, fix: Option<String>) -> Self {
        Self {
            captured: false,
            code,
            text,
            fix,
        }
    }

    /// Whether the connection stays with the pod or its host, where nobody else's policy is asked.
    pub(super) fn leads_nowhere_else(&self) -> bool {
        matches!(
            self.code,
            "loopback" | "unspecified" | "link_local" | "multicast" | "own_address"
        )
    }
}

/// Whether connections of a workload are captured at all, whatever they dial.
pub fn capture(node: &dyn Node, workload: &Workload) -> Capture {
    let pod = name_of(workload);
    let label = format!("label the pod or its namespace {MODE_LABEL}: {MODE_TRAMLINE}");
    if workload.host_network {
        let text = format!("{pod} is in its node's network namespace (hostNetwork), which is never enrolled");
        return Capture::no("host_network", text, Some("run it without hostNetwork".into()));
    }
    if !workload.enrolled {
        let on_pod = workload.labels.get(MODE_LABEL).map(AsRef::as_ref);
        return match on_pod {
            Some(MODE_NONE) => {
                let text = format!("the label {MODE_LABEL}: {MODE_NONE} on {pod} keeps it out");
                Capture::no("opted_out", text, Some(format!("remove that label, or {label}")))
            }
            Some(other) => {
                let text = format!("the label {MODE_LABEL}: {other} on {pod} gives it to another mesh");
                Capture::no("other_mesh", text, Some(label))
            }
            None => {
                let text =
                    format!("neither {pod} nor its namespace has the label {MODE_LABEL}: {MODE_TRAMLINE}");
                Capture::no("not_labelled", text, Some(label))
            }
        };
    }
    match node.enrolment(workload) {
        Enrolment::Done => Capture::yes(format!("{pod} is enrolled")),
        Enrolment::Elsewhere => Capture::yes(format!(
            "{pod} is to be enrolled on node {}: ask the agent there whether it is",
            workload.node
        )),
        Enrolment::Pending if workload.netns.is_none() => Capture::no(
            "no_network_namespace",
            format!("nothing says where the network namespace of {pod} is"),
            Some("give it the annotation tramline.dev/netns: /run/netns/NAME".into()),
        ),
        Enrolment::Pending => Capture::no(
            "enrolment_pending",
            format!("{pod} is to be enrolled and is not yet"),
            Some("wait a moment, then see the agent's log".into()),
        ),
        Enrolment::Failed(why) => Capture::no(
            "enrolment_failed",
            format!("{pod} cannot be enrolled: {why}"),
            Some("remove the cause; it is tried again every two seconds".into()),
        ),
    }
}

/// The same for any source.
pub(super) fn of_source(_: &Mesh, node: &dyn Node, source: &Source) -> Capture {
    match source {
        Source::Pod(workload) => capture(node, workload),
        Source::Outside(address) => Capture::no(
            "outside",
            format!("{address} is no pod's address: whoever has it dials in plaintext"),
            None,
        ),
    }
}

/// The same for one connection: what the pod's exclusions and the address leave alone is not captured either.
pub(super) fn of_connection(
    mesh: &Mesh,
    node: &dyn Node,
    source: &Source,
    destination: SocketAddr,
) -> Capture {
    let capture = of_source(mesh, node, source);
    match source {
        Source::Pod(workload) => excluded(node, workload, destination).unwrap_or(capture),
        Source::Outside(_) => capture,
    }
}

/// As the kernel asks at `connect`, see `ebpf/src/capture.rs`.
fn excluded(node: &dyn Node, workload: &Workload, destination: SocketAddr) -> Option<Capture> {
    let (address, port): (IpAddr, u16) = (destination.ip(), destination.port());
    if let Some(class) = node.never_captured(address) {
        let text = format!("{address} is never captured: {}", class.replace('_', "-"));
        return Some(Capture::no(class, text, None));
    }
    if workload.addresses.contains(&address) {
        let text = format!("{address} is the pod's own: it talks to itself");
        return Some(Capture::no("own_address", text, None));
    }
    if !workload.enrolled {
        return None;
    }
    if workload.capture.outbound_ports.contains(&port) {
        let text = format!("the annotation tramline.dev/exclude-outbound-ports has {port}");
        return Some(Capture::no(
            "excluded_port",
            text,
            Some(format!("take {port} out of that annotation")),
        ));
    }
    let range = workload
        .capture
        .outbound_ranges
        .iter()
        .find(|range| range.contains(&address))?;
    let text = format!("the annotation tramline.dev/exclude-outbound-cidrs has {range}");
    Some(Capture::no(
        "excluded_range",
        text,
        Some(format!("take {range} out of that annotation")),
    ))
}
