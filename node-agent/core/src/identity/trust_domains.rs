//! The trust domains that are this mesh: its own, and those that count as it.

use super::{IdentityError, SpiffeId, TrustDomain};

/// Istio's `trustDomain` and `trustDomainAliases`. An identity of an alias is that of the same service account in the mesh's
/// own trust domain: while a mesh changes its trust domain, or where two meshes are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomains {
    /// The mesh's own first; none twice.
    all: Box<[TrustDomain]>,
    own: TrustDomain,
}

impl TrustDomains {
    /// Each principal of a policy stands for as many as there are.
    pub const MAX_ALIASES: usize = 16;

    /// The mesh's own trust domain, and its aliases.
    ///
    /// # Errors
    /// More than [`Self::MAX_ALIASES`].
    pub fn new(own: TrustDomain, aliases: &[TrustDomain]) -> Result<Self, IdentityError> {
        let mut all = vec![own.clone()];
        for alias in aliases {
            if !all.contains(alias) {
                all.push(alias.clone());
            }
        }
        if all.len() > Self::MAX_ALIASES + 1 {
            return Err(IdentityError::TooManyAliases(all.len() - 1));
        }
        Ok(Self { all: all.into(), own })
    }

    /// The one in which this mesh's workloads have their identities.
    pub fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// All of them, the mesh's own first.
    pub fn all(&self) -> &[TrustDomain] {
        &self.all
    }

    /// Whether one is the mesh's own or an alias of it.
    pub fn contains(&self, trust_domain: &TrustDomain) -> bool {
        self.all.contains(trust_domain)
    }

    /// Whether two identities are of one service account of this mesh.
    pub fn are_one(&self, a: &SpiffeId, b: &SpiffeId) -> bool {
        a == b || (a.is_account_of(b) && self.contains(a.trust_domain()) && self.contains(b.trust_domain()))
    }
}

impl From<TrustDomain> for TrustDomains {
    fn from(own: TrustDomain) -> Self {
        Self {
            all: Box::new([own.clone()]),
            own,
        }
    }
}
