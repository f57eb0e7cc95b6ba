//! Who is who: the identity a peer's certificate proves, and the certificates of the workloads of this node.

mod peer;

pub use peer::{PeerIdentityError, peer_identity};
