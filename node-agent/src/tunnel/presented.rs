//! What one side of a tunnel shows, and whom it believes.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::{ClientConfig, ServerConfig};
use tokio_util::sync::CancellationToken;
use tramline_core::identity::SpiffeId;

use crate::identify::{Trust, WorkloadCertificate};

/// What a client shows.
#[derive(Clone)]
pub struct Shown {
    pub(super) tls: Arc<ClientConfig>,
    /// The end of the certificate.
    pub(super) expires: SystemTime,
    /// A newer certificate is there: no new streams on what was made with this one.
    pub(super) superseded: CancellationToken,
    pub(super) trust: Arc<Trust>,
}

impl Shown {
    /// Shows `certificate` to `expected` and to nobody else.
    pub fn to(expected: &SpiffeId, certificate: &WorkloadCertificate) -> Self {
        Self {
            tls: certificate.client_config(expected),
            expires: certificate.not_after(),
            superseded: certificate.superseded().clone(),
            trust: certificate.trust().clone(),
        }
    }
}

/// What a server shows.
#[derive(Clone)]
pub struct Served {
    pub(super) tls: Arc<ServerConfig>,
    /// The end of the certificate.
    pub(super) expires: SystemTime,
    /// A newer certificate is there: clients are to come back for it.
    pub(super) superseded: CancellationToken,
    pub(super) trust: Arc<Trust>,
}

impl Served {
    /// Shows `certificate` to whoever comes.
    pub fn with(certificate: &WorkloadCertificate) -> Self {
        Self {
            tls: certificate.server_config(),
            expires: certificate.not_after(),
            superseded: certificate.superseded().clone(),
            trust: certificate.trust().clone(),
        }
    }
}
