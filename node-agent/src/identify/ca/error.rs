//! What keeps the authority from opening or issuing, and what to do about it.

use std::io;
use std::path::PathBuf;

use tramline_core::identity::{SpiffeId, TrustDomain};

/// Why there is no certificate authority, or no certificate from it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, such as `read`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Something else stands where a file or directory belongs; links are not followed.
    #[error("{} is not a {expected}; move it away", path.display())]
    FileType {
        /// What stands there.
        path: PathBuf,
        /// What belongs there.
        expected: &'static str,
    },
    /// Another user could replace the file.
    #[error("{} belongs to uid {owner}, but the agent runs as uid {agent}; if you trust what it holds, run `chown {agent}` on it", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// To whom it belongs.
        owner: u32,
        /// Who asks.
        agent: u32,
    },
    /// Other users may have read or changed the file.
    #[error("{} has mode {mode:04o}, which lets other users {access} it; if none of them did, run `chmod {wanted:04o}` on it, else move the directory away and start with a new root on every node", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What others could do.
        access: &'static str,
        /// The bits it should have.
        wanted: u32,
    },
    /// The root certificate is there without its key.
    #[error("{} is there, but {} is not; restore the key, or move the certificate away to make a new root, which every node then needs", root.display(), key.display())]
    MissingKey {
        /// The root certificate.
        root: PathBuf,
        /// The key that is missing.
        key: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{}: {what}; restore the file, or move its directory away to make a new root, which every node then needs", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The root names another trust domain.
    #[error("the root in {} is for {found:?}, but the agent's trust domain is {expected}; set --trust-domain, or give the agent another --state-dir", path.display())]
    TrustDomain {
        /// The root certificate.
        path: PathBuf,
        /// The URI in the root.
        found: String,
        /// What the agent was told.
        expected: TrustDomain,
    },
    /// The root's ten years, or whatever a replacement was given, are over.
    #[error("the root in {} has expired; move its directory away to make a new root, which every node then needs", .0.display())]
    RootExpired(PathBuf),
    /// The certificate that signs was there and is not any more.
    #[error("{} is gone; what it held stays in force until the agent ends, put it back or put its successor there", .0.display())]
    Gone(PathBuf),
    /// A file of the operator does not say whom to trust.
    #[error("{}: {what}", path.display())]
    Given {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What the authority signs would be refused by everybody who trusts the same roots.
    #[error("what {} signs would be refused: {what}; the root above it belongs into --trust-bundle", path.display())]
    Probe {
        /// The certificate that signs.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// Another process holds the lock for too long.
    #[error("{} is locked by another process, which should take milliseconds; find it with `fuser`", .0.display())]
    Locked(PathBuf),
    /// An identity that this root does not vouch for.
    #[error("{0} is not of this authority's trust domain")]
    ForeignIdentity(SpiffeId),
    /// Nothing is left of the certificate's validity, or the clock is out of range.
    #[error(
        "the certificate would have expired before its first use; see the clock, --certificate-ttl and the root's end"
    )]
    Lifetime,
    /// The system has no randomness to give.
    #[error("no random bytes from the system")]
    Random,
    /// A certificate could not be made.
    #[error("making a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// The certificate and its key do not make a TLS configuration.
    #[error("preparing TLS: {0}")]
    Tls(#[from] rustls::Error),
}
