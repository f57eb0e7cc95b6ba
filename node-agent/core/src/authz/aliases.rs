//! Principals and trust domains of a policy in a mesh whose trust domain has aliases, as Istio's pilot makes them (`trustdomain`
//! bundle): one that is written for any of them stands for all.

use std::collections::HashSet;
use std::sync::Arc;

use super::StringMatch;
use crate::identity::TrustDomains;

/// Points at the mesh's own trust domain, whatever that is.
const LOCAL: &str = "cluster.local";
/// `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
const SLASHES: usize = 4;

impl StringMatch {
    /// Puts those that each stands for in the place of patterns of principals or trust domains.
    pub(crate) fn expand(patterns: &mut Vec<Self>, ours: &TrustDomains) {
        if patterns.iter().all(|pattern| pattern.is_alone(ours)) {
            return;
        }
        let mut seen = HashSet::new();
        let mut all: Vec<Self> = patterns
            .iter()
            .flat_map(|pattern| pattern.expanded(ours))
            .collect();
        all.retain(|pattern| seen.insert(pattern.clone()));
        all.shrink_to_fit();
        *patterns = all;
    }

    /// Whether it stands for nothing but itself.
    fn is_alone(&self, ours: &TrustDomains) -> bool {
        match (self, ours.all()) {
            (Self::Present, _) => true,
            (Self::Suffix(_), all) => all.len() == 1,
            (Self::Exact(text) | Self::Prefix(text), [own]) => {
                let (domain, _) = taken_apart(text);
                domain == own.as_str() || domain != LOCAL
            }
            _ => false,
        }
    }

    fn expanded(&self, ours: &TrustDomains) -> Vec<Self> {
        let in_each = |text: &Arc<str>, make: fn(Arc<str>) -> Self| {
            let (domain, rest) = taken_apart(text);
            if domain != LOCAL && ours.all().iter().all(|our| our.as_str() != domain) {
                return vec![self.clone()];
            }
            let each = ours.all().iter();
            each.map(|our| make(format!("{our}{rest}").into())).collect()
        };
        match self {
            Self::Exact(text) => in_each(text, Self::Exact),
            Self::Prefix(text) => in_each(text, Self::Prefix),
            Self::Suffix(text) => {
                // `*-domain/ns/NAMESPACE/sa/NAME`, of which one of ours has the ending: the others beside it.
                let (ending, rest) = taken_apart(text);
                let is_principal = !ending.is_empty() && rest.matches('/').count() == SLASHES;
                let has = |our: &&_| str::ends_with(crate::identity::TrustDomain::as_str(our), ending);
                let mut all = vec![self.clone()];
                if is_principal && ours.all().iter().any(|our| has(&our)) {
                    let others = ours.all().iter().filter(|our| !has(our));
                    all.extend(others.map(|our| Self::Exact(format!("{our}{rest}").into())));
                }
                all
            }
            Self::Present => vec![Self::Present],
        }
    }
}

/// The trust domain, and what follows it.
fn taken_apart(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
}
