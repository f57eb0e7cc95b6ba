//! An authority in a temporary directory, and handshakes over a pipe in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use tramline_core::identity::{SpiffeId, TrustDomain};

use super::ca::CertificateAuthority;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn trust_domain() -> TrustDomain {
    TrustDomain::new("cluster.local").unwrap()
}

/// `spiffe://cluster.local/ns/shop/sa/NAME`.
pub(super) fn workload(name: &str) -> SpiffeId {
    SpiffeId::new(&trust_domain(), "shop", name).unwrap()
}

/// An authority whose files end with the test.
pub(super) fn authority() -> CertificateAuthority {
    let dir = TempDir::new().unwrap();
    CertificateAuthority::open_or_create(dir.path(), &trust_domain()).unwrap()
}

pub(super) type Handshake = (
    io::Result<client::TlsStream<DuplexStream>>,
    io::Result<server::TlsStream<DuplexStream>>,
);

/// What either side makes of the other. A TLS 1.3 client can be content before the server has seen its certificate.
pub(super) async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Handshake {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("web.shop.example").unwrap();
    let both = async {
        tokio::join!(
            TlsConnector::from(client).connect(name, near),
            TlsAcceptor::from(server).accept(far)
        )
    };
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap()
}
