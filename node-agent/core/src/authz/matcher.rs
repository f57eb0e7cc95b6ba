//! The ways in which a policy compares.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use thiserror::Error;

use crate::identity::{SpiffeId, TrustDomain, is_label, is_subdomain};

/// Why a pattern of a policy is refused. Each of these would never match: an ALLOW would be shut without a word and,
/// worse, a DENY open.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The empty string.
    #[error("is empty; use `*` for any value")]
    Empty,
    /// `*` anywhere but at one end.
    #[error("`{0}`: `*` may stand alone, at the beginning or at the end, and once only")]
    InnerWildcard(String),
    /// The scheme written out.
    #[error("`{0}`: write the principal without `spiffe://`")]
    Scheme(String),
    /// An exact principal that no workload can have.
    #[error("`{0}`: a principal reads TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
    NotAPrincipal(String),
    /// An exact namespace that cannot exist.
    #[error("`{0}` is not a namespace name (a-z, 0-9, `-`, at most 63 characters)")]
    NotANamespace(String),
    /// An exact trust domain that cannot exist.
    #[error("`{0}` is not a trust domain (a-z, 0-9, `.`, `-`, `_`, at most 255 characters)")]
    NotATrustDomain(String),
    /// Neither `NAMESPACE/NAME` nor `NAME`.
    #[error(
        "`{0}`: a service account reads NAMESPACE/NAME, or NAME for the policy's own namespace; no wildcards"
    )]
    NotAServiceAccount(String),
    /// Neither an address nor a range.
    #[error("`{0}` is neither an IP address nor a CIDR range")]
    NotAnIpBlock(String),
    /// Bits outside the prefix are set.
    #[error("`{0}`: bits outside the prefix are set; did you mean `{1}`?")]
    HostBits(String, IpNet),
    /// Not a port number.
    #[error("`{0}` is not a port number from 1 to 65535")]
    NotAPort(String),
}

/// Istio's string match: exact, prefix, suffix or presence. Never a regular expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// The whole value.
    Exact(Arc<str>),
    /// `abc*`
    Prefix(Arc<str>),
    /// `*abc`
    Suffix(Arc<str>),
    /// `*`: any value that is there.
    Present,
}

impl StringMatch {
    /// Reads a pattern.
    ///
    /// # Errors
    /// The empty pattern, and `*` elsewhere than at one end.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let pattern = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            _ if text.is_empty() => return Err(PatternError::Empty),
            _ if text == "*" => return Ok(Self::Present),
            (Some(suffix), _) => (Self::Suffix(suffix.into()), suffix),
            (None, Some(prefix)) => (Self::Prefix(prefix.into()), prefix),
            (None, None) => (Self::Exact(text.into()), text),
        };
        if pattern.1.contains('*') {
            return Err(PatternError::InnerWildcard(text.into()));
        }
        Ok(pattern.0)
    }

    /// Reads a pattern for whole principals.
    ///
    /// # Errors
    /// Patterns that no principal can match.
    pub fn principal(text: &str) -> Result<Self, PatternError> {
        if text.starts_with("spiffe:") {
            return Err(PatternError::Scheme(text.into()));
        }
        let pattern = Self::parse(text)?;
        if let Self::Exact(exact) = &pattern
            && SpiffeId::parse(&format!("spiffe://{exact}")).is_err()
        {
            return Err(PatternError::NotAPrincipal(text.into()));
        }
        Ok(pattern)
    }

    /// Reads a pattern for namespaces.
    ///
    /// # Errors
    /// Patterns that no namespace can match.
    pub fn namespace(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::parse(text)?;
        match &pattern {
            Self::Exact(exact) if !is_label(exact) => Err(PatternError::NotANamespace(text.into())),
            _ => Ok(pattern),
        }
    }

    /// Reads a pattern for trust domains.
    ///
    /// # Errors
    /// Patterns that no trust domain can match.
    pub fn trust_domain(text: &str) -> Result<Self, PatternError> {
        let pattern = Self::parse(text)?;
        match &pattern {
            Self::Exact(exact) if TrustDomain::new(exact).is_err() => {
                Err(PatternError::NotATrustDomain(text.into()))
            }
            _ => Ok(pattern),
        }
    }

    /// Whether a value matches.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == &**exact,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Suffix(suffix) => value.ends_with(&**suffix),
            Self::Present => !value.is_empty(),
        }
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Present => f.write_str("*"),
        }
    }
}

/// One service account in any trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl ServiceAccountMatch {
    /// Reads `NAMESPACE/NAME`, or `NAME` in the policy's own namespace.
    ///
    /// # Errors
    /// Anything else, wildcards included.
    pub fn parse(text: &str, policy_namespace: &str) -> Result<Self, PatternError> {
        let (namespace, name) = text.split_once('/').unwrap_or((policy_namespace, text));
        if !is_label(namespace) || !is_subdomain(name) {
            return Err(PatternError::NotAServiceAccount(text.into()));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// `NAMESPACE/sa/NAME`, as [`SpiffeId::account`] has it.
    pub(super) fn in_principal(&self) -> String {
        format!("{}/sa/{}", self.namespace, self.name)
    }

    /// Whether an identity is that service account.
    pub fn matches(&self, identity: &SpiffeId) -> bool {
        identity.namespace() == &*self.namespace && identity.service_account() == &*self.name
    }
}

impl fmt::Display for ServiceAccountMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Bits of `::ffff:0:0/96`, RFC 4291 section 2.5.5.2.
const MAPPED: u8 = 96;

/// One address or range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpMatch(IpNet);

impl IpMatch {
    /// Reads an address or a CIDR range.
    ///
    /// # Errors
    /// Anything else, and ranges with bits set outside the prefix.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text
                .parse::<IpNet>()
                .map_err(|_| PatternError::NotAnIpBlock(text.into()))?,
        };
        let net = unmapped(net);
        if net.trunc() != net {
            return Err(PatternError::HostBits(text.into(), net.trunc()));
        }
        Ok(Self(net))
    }

    pub(super) fn net(&self) -> IpNet {
        self.0
    }

    /// Whether an address (not IPv4-mapped) lies within.
    pub fn matches(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for IpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// A range of IPv4-mapped addresses as the IPv4 range that it is: no peer has an address of that form here. A wider one, such as
/// `::/0`, stays one of IPv6 alone, as in Envoy and ztunnel.
pub(crate) fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    v6.addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED))
        .and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok())
        .unwrap_or(net)
}

/// Reads the port of an operation or condition.
///
/// # Errors
/// Anything but a number from 1 to 65535 without sign, blanks or leading zero.
pub(super) fn port(text: &str) -> Result<u16, PatternError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with(['+', '0']) => Ok(port),
        _ => Err(PatternError::NotAPort(text.into())),
    }
}
