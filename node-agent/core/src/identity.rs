//! SPIFFE identities of the one form the mesh uses: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
//!
//! The parser follows the SPIFFE-ID specification (section 2) and is stricter where the specification leaves room:
//! the path has exactly the four segments above and both names obey the Kubernetes grammar, so two different
//! strings never name one workload.

mod trust_domains;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

pub use self::trust_domains::TrustDomains;

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID specification, section 2.3: the longest identity an implementation has to support.
const MAX_SPIFFE_ID: usize = 2048;
/// SPIFFE-ID specification, section 2.1.
const MAX_TRUST_DOMAIN: usize = 255;
/// RFC 1123 label: a Kubernetes namespace.
const MAX_LABEL: usize = 63;
/// RFC 1123 subdomain: a Kubernetes service account.
const MAX_SUBDOMAIN: usize = 253;

/// Why a text is not an identity of this mesh.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// Longer than 2048 bytes; the text itself is not repeated.
    #[error("SPIFFE ID has {0} bytes, at most {MAX_SPIFFE_ID} are allowed")]
    TooLong(usize),
    /// The scheme is missing, another one, or not in lower case.
    #[error("SPIFFE ID must begin with `spiffe://`")]
    Scheme,
    /// The path is anything but `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    #[error("SPIFFE ID must be exactly spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    Path,
    /// The trust domain breaks the grammar of SPIFFE-ID section 2.1.
    #[error("trust domain must be 1 to {MAX_TRUST_DOMAIN} characters of a-z, 0-9, `.`, `-`, `_`")]
    TrustDomain,
    /// More than [`TrustDomains::MAX_ALIASES`].
    #[error("a trust domain has {0} aliases, at most {max} are allowed", max = TrustDomains::MAX_ALIASES)]
    TooManyAliases(usize),
    /// The namespace is not an RFC 1123 label.
    #[error("namespace must be an RFC 1123 label (a-z, 0-9, `-`, at most {MAX_LABEL} characters)")]
    Namespace,
    /// The service account is not an RFC 1123 subdomain.
    #[error(
        "service account must be an RFC 1123 subdomain (a-z, 0-9, `-`, `.`, at most {MAX_SUBDOMAIN} characters)"
    )]
    ServiceAccount,
}

/// The name of one root of trust, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Checks the grammar of SPIFFE-ID section 2.1.
    ///
    /// # Errors
    /// [`IdentityError::TrustDomain`] for everything else, upper case included.
    pub fn new(name: &str) -> Result<Self, IdentityError> {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN || !name.bytes().all(allowed) {
            return Err(IdentityError::TrustDomain);
        }
        Ok(Self(name.into()))
    }

    /// The name, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

/// The identity of one service account, the unit to which certificates are issued and policies refer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    /// The whole identity; every part is a slice of it, so that matching allocates nothing.
    uri: Arc<str>,
    trust_domain: TrustDomain,
    namespace_len: u8,
}

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// Names outside the Kubernetes grammar, or a result over 2048 bytes.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        if !is_label(namespace) {
            return Err(IdentityError::Namespace);
        }
        if !is_subdomain(service_account) {
            return Err(IdentityError::ServiceAccount);
        }
        let uri = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}");
        let namespace_len = u8::try_from(namespace.len()).map_err(|_| IdentityError::Namespace)?;
        Ok(Self {
            uri: uri.into(),
            trust_domain: trust_domain.clone(),
            namespace_len,
        })
    }

    /// Reads exactly `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`: no percent-encoding, query, fragment,
    /// port, user information, empty or further segment, trailing slash or upper case.
    ///
    /// # Errors
    /// Which part is wrong; never echoes the input, which may come from a hostile certificate.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.len() > MAX_SPIFFE_ID {
            return Err(IdentityError::TooLong(text.len()));
        }
        let principal = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let mut segments = principal.split('/');
        let trust_domain = TrustDomain::new(segments.next().unwrap_or_default())?;
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(service_account), None) => {
                Self::new(&trust_domain, namespace, service_account)
            }
            _ => Err(IdentityError::Path),
        }
    }

    /// The root of trust that vouches for this identity.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        self.uri.get(self.namespace_range()).unwrap_or_default()
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        self.uri
            .get(self.namespace_range().end + "/sa/".len()..)
            .unwrap_or_default()
    }

    /// Namespace and service account as they stand in the identity: `NAMESPACE/sa/SERVICE-ACCOUNT`.
    pub(crate) fn account(&self) -> &str {
        self.uri.get(self.namespace_range().start..).unwrap_or_default()
    }

    /// Whether both name the same service account, in whatever trust domain.
    pub fn is_account_of(&self, other: &Self) -> bool {
        self.account() == other.account()
    }

    /// The form that Istio policies use: `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`, without the scheme.
    pub fn principal(&self) -> &str {
        self.uri.get(SCHEME.len()..).unwrap_or_default()
    }

    /// The whole identity, as it stands in a certificate.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The same, to be shared.
    pub fn uri(&self) -> &Arc<str> {
        &self.uri
    }

    fn namespace_range(&self) -> Range<usize> {
        let start = SCHEME.len() + self.trust_domain.as_str().len() + "/ns/".len();
        start..start + usize::from(self.namespace_len)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl std::str::FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Whether a text is an RFC 1123 label, the grammar of a Kubernetes namespace.
pub fn is_label(text: &str) -> bool {
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty()
        && text.len() <= MAX_LABEL
        && text.bytes().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is an RFC 1123 subdomain, the grammar of most Kubernetes names.
pub fn is_subdomain(text: &str) -> bool {
    // Kubernetes bounds the whole, not each part, so `is_label` (63) does not fit.
    let part = |part: &str| {
        let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        !part.is_empty() && part.bytes().all(allowed) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(part)
}

#[cfg(test)]
mod tests;
