//! Whether an HBONE CONNECT may lead where it says.

use std::net::SocketAddr;

use thiserror::Error;

use crate::reason::Reason;
use crate::workload::Workload;

/// The port on which an agent answers HBONE for each enrolled workload.
pub const HBONE_PORT: u16 = 15008;

/// Why a CONNECT is refused before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmitError {
    /// The authority is anything but `IP:port`; it is not repeated, the peer chose it.
    #[error("the authority of CONNECT is not IP:port")]
    Malformed,
    /// The address is another one than the workload's.
    #[error("{target} is not an address of workload {workload}")]
    NotThisWorkload {
        /// Where the peer wanted to go.
        target: SocketAddr,
        /// `NAMESPACE/NAME` of the workload whose port 15008 was dialled.
        workload: String,
    },
    /// A port that leads to the agent itself, or to nothing.
    #[error("port {0} cannot be the target of a tunnel")]
    ReservedPort(u16),
}

impl AdmitError {
    /// The code for logs and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed | Self::NotThisWorkload { .. } => Reason::AuthorityMismatch,
            Self::ReservedPort(_) => Reason::CaptureLoop,
        }
    }
}

/// Whether a port leads to the agent itself, or to nothing: never the target of a connection inside the mesh.
pub fn is_reserved(port: u16) -> bool {
    matches!(port, 0 | HBONE_PORT)
}

/// Reads the authority of a CONNECT that arrived at `workload` and answers with the address to deliver to.
///
/// # Errors
/// See [`AdmitError`]; all of them are `400` or `503` on the wire, never a connection.
pub fn inbound_target(workload: &Workload, authority: &str) -> Result<SocketAddr, AdmitError> {
    // A scope means something on one host only, scope 0 nothing at all.
    if authority.contains('%') {
        return Err(AdmitError::Malformed);
    }
    let target: SocketAddr = authority.parse().map_err(|_| AdmitError::Malformed)?;
    let target = SocketAddr::new(target.ip().to_canonical(), target.port());
    if !workload.addresses.contains(&target.ip()) {
        let workload = format!("{}/{}", workload.namespace, workload.name);
        return Err(AdmitError::NotThisWorkload { target, workload });
    }
    if is_reserved(target.port()) {
        return Err(AdmitError::ReservedPort(target.port()));
    }
    Ok(target)
}
