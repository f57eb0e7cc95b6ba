//! One workload's certificate with its key, ready for TLS in both directions.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use tramline_core::identity::SpiffeId;

use super::verify::{AnyWorkload, ExpectedWorkload, Trust};

/// HBONE is HTTP/2 (RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

/// A certificate, its private key (in memory only) and the TLS configurations made from them.
// No `Debug`: the configurations hold the key.
pub struct WorkloadCertificate {
    identity: SpiffeId,
    not_before: SystemTime,
    not_after: SystemTime,
    server: Arc<ServerConfig>,
    /// Expects the workload itself; copied and given the peer that is expected, see [`Self::client_config`].
    client: ClientConfig,
    trust: Arc<Trust>,
}

impl WorkloadCertificate {
    /// `leaf`, valid between `not_before` and `not_after`, with its key.
    pub(super) fn new(
        identity: SpiffeId,
        (not_before, not_after): (SystemTime, SystemTime),
        leaf: CertificateDer<'static>,
        key: Arc<dyn SigningKey>,
        trust: Arc<Trust>,
    ) -> Result<Self, rustls::Error> {
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![leaf], key)));
        Ok(Self {
            server: Arc::new(server(&trust, certified.clone())?),
            client: client(&trust, certified, identity.clone())?,
            identity,
            not_before,
            not_after,
            trust,
        })
    }

    /// Whom the certificate names.
    pub fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// The end of the certificate's validity: no stream is opened after it. One that is open goes on (docs/STATUS.md).
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether a peer with a right clock accepts the certificate at `now`.
    pub fn valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// Answers as this workload: TLS 1.3, a client certificate of our trust domain required, ALPN `h2` where the
    /// client asks for a protocol, no resumption.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// Connects as this workload to `expected` and to nobody else: TLS 1.3, ALPN `h2`, no SNI, no resumption.
    ///
    /// Cheap enough for every connection: everything but the expectation is shared.
    pub fn client_config(&self, expected: &SpiffeId) -> Arc<ClientConfig> {
        let mut config = self.client.clone();
        config
            .dangerous()
            .set_certificate_verifier(Arc::new(ExpectedWorkload {
                trust: self.trust.clone(),
                expected: expected.clone(),
            }));
        Arc::new(config)
    }
}

fn server(trust: &Arc<Trust>, certified: Arc<SingleCertAndKey>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(trust.provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyWorkload(trust.clone())))
        .with_cert_resolver(certified);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session would carry an identity past its certificate's end.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client(
    trust: &Arc<Trust>,
    certified: Arc<SingleCertAndKey>,
    expected: SpiffeId,
) -> Result<ClientConfig, rustls::Error> {
    let verifier = ExpectedWorkload {
        trust: trust.clone(),
        expected,
    };
    let mut config = ClientConfig::builder_with_provider(trust.provider().clone())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(certified);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
impl WorkloadCertificate {
    /// Makes the client side accept servers of another authority, which in turn have to refuse this certificate.
    pub(super) fn believe(&mut self, trust: Arc<Trust>) {
        self.trust = trust;
    }
}

#[cfg(test)]
mod tests;
