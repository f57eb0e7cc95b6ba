//! One workload's certificate with its key, ready for TLS in both directions.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;
use tramline_core::identity::SpiffeId;
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::trust::{RootInfo, Trust};
use super::verify::{AnyWorkload, ExpectedWorkload};

/// HBONE is HTTP/2 (RFC 9113 section 3.2).
const ALPN: &[u8] = b"h2";

/// What the authority says of a certificate it made.
pub(super) struct Issued {
    pub(super) identity: SpiffeId,
    /// From when until when it is valid.
    pub(super) validity: (SystemTime, SystemTime),
    /// Who signed it.
    pub(super) issuer: RootInfo,
    /// Fingerprint of the root that vouches for it.
    pub(super) vouching: String,
    /// Cancelled when it is to serve no new connections.
    pub(super) superseded: CancellationToken,
}

/// A certificate, its private key (in memory only) and the TLS configurations made from them.
// No `Debug`: the configurations hold the key.
pub struct WorkloadCertificate {
    issued: Issued,
    /// Of the leaf, in hexadecimal.
    serial: String,
    /// The leaf first.
    chain: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
    /// Expects the workload itself; copied and given the peer that is expected, see [`Self::client_config`].
    client: ClientConfig,
    trust: Arc<Trust>,
}

impl WorkloadCertificate {
    /// The leaf first, then whatever leads to the root.
    pub(super) fn new(
        issued: Issued,
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
        trust: Arc<Trust>,
    ) -> Result<Self, rustls::Error> {
        let serial = chain.first().map(serial).unwrap_or_default();
        let kept = chain.clone();
        let certified = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        Ok(Self {
            server: Arc::new(server(&trust, certified.clone())?),
            client: client(&trust, certified, issued.identity.clone())?,
            issued,
            serial,
            chain: kept,
            trust,
        })
    }

    /// Whom the certificate names.
    pub fn identity(&self) -> &SpiffeId {
        &self.issued.identity
    }

    /// The end of the certificate's validity: no stream is opened after it. One that is open goes on (docs/STATUS.md).
    pub fn not_after(&self) -> SystemTime {
        self.issued.validity.1
    }

    /// Whether a peer with a right clock accepts the certificate at `now`.
    pub fn valid_at(&self, now: SystemTime) -> bool {
        let (not_before, not_after) = self.issued.validity;
        not_before <= now && now < not_after
    }

    /// Cancelled once a newer certificate of the workload is there: tunnels made with this one take no new streams,
    /// and end with those they have.
    pub fn superseded(&self) -> &CancellationToken {
        &self.issued.superseded
    }

    /// Whom the workload believes.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Whether those who believe what this agent believes accept it at `now`.
    pub(super) fn believed(&self, now: SystemTime) -> bool {
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        self.chain.split_first().is_some_and(|(leaf, above)| {
            self.trust
                .verify(leaf, above, now, KeyUsage::server_auth())
                .is_ok()
        })
    }

    /// For people and metrics, with the moment at which it is renewed.
    pub(super) fn info(&self, renew_at: SystemTime) -> CertificateInfo {
        CertificateInfo {
            identity: self.issued.identity.clone(),
            serial: self.serial.clone(),
            not_before: self.issued.validity.0,
            not_after: self.issued.validity.1,
            issuer: self.issued.issuer.subject.clone(),
            issuer_fingerprint: self.issued.issuer.fingerprint.clone(),
            root_fingerprint: self.issued.vouching.clone(),
            renew_at,
        }
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

/// A certificate in use, for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Whom it names.
    pub identity: SpiffeId,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// The beginning of its validity, a minute before it was made: peers' clocks may be behind.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// The distinguished name of whoever signed it.
    pub issuer: String,
    /// SHA-256 of the signer's certificate, in hexadecimal.
    pub issuer_fingerprint: String,
    /// SHA-256 of the root that vouches for the signer: the same certificate, where a root signs.
    pub root_fingerprint: String,
    /// When it is renewed, if it is in use.
    pub renew_at: SystemTime,
}

fn serial(leaf: &CertificateDer<'static>) -> String {
    X509Certificate::from_der(leaf)
        .map(|(_, leaf)| {
            leaf.raw_serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        })
        .unwrap_or_default()
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
    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Makes the client side accept servers of another authority, which in turn have to refuse this certificate.
    pub(super) fn believe(&mut self, trust: Arc<Trust>) {
        self.trust = trust;
    }
}

#[cfg(test)]
mod tests;
