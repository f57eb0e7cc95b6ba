//! The promises, in the order in which they are shown. A fact returns its evidence, or why it does not hold.

mod basics;
mod configuration;
mod crash;
mod explain;
mod link;
mod policy;
mod rotation;
mod telemetry;
mod transport;

use anyhow::Result;

use crate::stage::Stage;

/// A promise and the way to look.
pub(crate) type Show = (&'static str, fn(&mut Stage) -> Result<String>);

/// All of them. Later ones stand on the policy that earlier ones have set.
pub(crate) const ALL: &[Show] = &[
    (
        "Both agents are ready and have enrolled their pods",
        basics::enrolled,
    ),
    ("A request to the Service is answered", basics::answered),
    (
        "getpeername in the client is the Service address it dialled",
        basics::peer_is_service,
    ),
    (
        "The server sees the client's own address, also from the other node",
        basics::server_sees_client,
    ),
    ("Requests spread over both versions", basics::spread),
    ("Only TLS crosses the link between the nodes", link::tls_only),
    ("Both ends proved their SPIFFE identity", link::identities),
    (
        "IPv6 and v4-mapped connections are carried like IPv4",
        transport::families,
    ),
    (
        "A half-close arrives: the answer comes after the end of the request",
        transport::half_close,
    ),
    (
        "A reset by the server reaches the client as a reset",
        transport::reset,
    ),
    ("A closed port looks closed", transport::closed_port),
    ("No port of the pod is taken", transport::ports_free),
    ("500 connections in a row, none lost", transport::none_lost),
    ("Metrics count exactly these connections", telemetry::metrics),
    (
        "The access log has a line for each of these connections",
        telemetry::access_log,
    ),
    ("STRICT refuses the intruder's plaintext", policy::strict),
    (
        "A policy admits one service account and denies another, and says why",
        policy::denies,
    ),
    (
        "The agent explains what is let in, denied and not captured, and so it is",
        explain::explained,
    ),
    (
        "Certificates are renewed under load: no request fails, no connection is cut",
        rotation::renewed,
    ),
    (
        "A bad manifest is refused, and the last good configuration stays in force",
        configuration::refused,
    ),
    (
        "The agent killed: what goes on, what stops, and nothing in the clear",
        crash::killed,
    ),
    ("The agent started again: service is back", crash::restarted),
];
