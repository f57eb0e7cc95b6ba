//! Who is who: the identity a peer's certificate proves, and the certificates of the workloads of this node.
//!
//! One authority, made by [`CertificateAuthority`] in files mode, signs short-lived certificates whose keys never leave
//! memory; [`CertStore`] keeps one per identity and renews it. A peer is whoever its certificate's single URI says
//! ([`peer_identity`]), once its chain leads to a root of [`Trust`], which may change while the agent runs.

mod ca;
mod certificate;
mod peer;
mod store;
#[cfg(test)]
mod test_support;
mod trust;
mod verify;

pub use ca::{CaError, CertificateAuthority, TrustFiles, TrustReloads};
pub use certificate::{CertificateInfo, WorkloadCertificate};
pub use peer::{PeerIdentityError, peer_identity};
pub use store::{CertStore, IdentityError, IssueCounts};
pub use trust::{Believed, CrlInfo, PeerRole, RootInfo, Trust, TrustGuard, TrustSnapshot};
pub use verify::{PeerError, handshake_reason, is_refusal};
