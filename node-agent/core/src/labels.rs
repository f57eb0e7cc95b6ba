//! Kubernetes labels and the selectors that name workloads by them.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels or annotations of an object.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// `matchLabels`: every pair has to be there. Never empty: an empty selector selects a whole namespace in Istio and
/// is represented by the absence of a `Selector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Labels);

impl Selector {
    /// `None` for no labels at all.
    pub fn new(match_labels: Labels) -> Option<Self> {
        if match_labels.is_empty() {
            None
        } else {
            Some(Self(match_labels))
        }
    }

    /// Whether a workload with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// The pairs that have to be there.
    pub fn labels(&self) -> &Labels {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn every_pair_has_to_be_there_with_its_value() {
        let selector = Selector::new(labels(&[("app", "a"), ("version", "v1")])).unwrap();
        assert!(selector.matches(&labels(&[("app", "a"), ("version", "v1"), ("other", "x")])));
        assert!(!selector.matches(&labels(&[("app", "a")])));
        assert!(!selector.matches(&labels(&[("app", "a"), ("version", "v2")])));
        assert!(!selector.matches(&Labels::new()));
    }

    #[test]
    fn no_labels_is_no_selector() {
        assert_eq!(Selector::new(Labels::new()), None);
    }
}
