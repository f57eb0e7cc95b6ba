//! What `/certificates` answers. Times are RFC 3339.

use serde::{Deserialize, Serialize};

/// `/certificates`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CertificateReport {
    /// Certificates of this node's workloads, by identity; only of those that needed one.
    pub certificates: Vec<CertificateRow>,
    /// The roots of trust, the one that lives longest first.
    pub roots: Vec<RootRow>,
    /// The revocation lists.
    pub revocation_lists: Vec<RevocationListRow>,
}

/// One certificate of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// The SPIFFE identity.
    pub identity: String,
    /// Serial number, in hexadecimal.
    pub serial: String,
    /// When it begins to hold.
    pub not_before: String,
    /// When it expires.
    pub not_after: String,
    /// Seconds until then; negative afterwards.
    pub expires_in_seconds: i64,
    /// When it is renewed, if it is in use.
    pub renew_at: String,
    /// Distinguished name of whoever signed it.
    pub issuer: String,
    /// SHA-256 of the signer's certificate, in hexadecimal.
    pub issuer_fingerprint: String,
    /// SHA-256 of the root that vouches for the signer, in hexadecimal.
    pub root_fingerprint: String,
}

/// One root of trust.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RootRow {
    /// Its distinguished name.
    pub subject: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// When it begins to vouch for anybody.
    pub not_before: String,
    /// When it ceases to.
    pub not_after: String,
    /// Seconds until then; negative afterwards.
    pub expires_in_seconds: i64,
}

/// One revocation list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevocationListRow {
    /// Distinguished name of whoever issued it.
    pub issuer: String,
    /// When it was issued.
    pub this_update: String,
    /// When the next one was promised; a list stays in force after it.
    pub next_update: String,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// Whether a root has signed it.
    pub verified: bool,
}
