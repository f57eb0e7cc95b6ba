//! Out of a pod's namespace, as the pod itself: its address, its routes, its NetworkPolicies.

use super::{DialError, connect};
use crate::broker::Broker;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;
use tramline_common::PodId;

/// Connects from the pod's namespace to `address`.
pub(crate) async fn egress(
    broker: &Broker,
    pod: PodId,
    address: SocketAddr,
    within: Duration,
) -> Result<TcpStream, DialError> {
    let socket = broker.egress_socket(pod, address.ip())?;
    connect(socket, address, within).await
}
