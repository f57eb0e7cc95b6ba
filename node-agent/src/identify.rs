//! Who is who: the identity a peer's certificate proves, and the certificates of the workloads of this node.
//!
//! One root of trust, made by [`CertificateAuthority`] in files mode, signs short-lived certificates whose keys never
//! leave memory; [`CertStore`] keeps one per identity and renews it. A peer is whoever its certificate's single URI
//! says ([`peer_identity`]), once the chain is verified.

mod ca;
mod certificate;
mod peer;
mod store;
#[cfg(test)]
mod test_support;
mod verify;

pub use ca::{CaError, CertificateAuthority};
pub use certificate::WorkloadCertificate;
pub use peer::{PeerIdentityError, peer_identity};
pub use store::{CertStore, IdentityError};
pub use verify::{PeerError, handshake_reason};
