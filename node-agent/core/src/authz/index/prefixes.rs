//! Prefixes of text. Patterns are mostly of few lengths (`cluster.local/ns/NAME/*`): one look-up per length touches
//! less memory than a search among all of them.

use std::collections::{BTreeSet, HashMap};

use super::nested::Nested;

/// Beyond this many lengths a search is cheaper.
const FEW: usize = 8;

#[derive(Debug, Clone)]
pub(super) enum Prefixes<V> {
    Few {
        lengths: Vec<usize>,
        table: HashMap<Box<[u8]>, V>,
    },
    Many(Nested<Box<[u8]>, V>),
}

impl<V> Default for Prefixes<V> {
    fn default() -> Self {
        Self::Few {
            lengths: Vec::new(),
            table: HashMap::new(),
        }
    }
}

impl<V> Prefixes<V> {
    /// The table of prefixes that are all different.
    pub(super) fn new(items: Vec<(Box<[u8]>, V)>) -> Self {
        let lengths: BTreeSet<usize> = items.iter().map(|(key, _)| key.len()).collect();
        if lengths.len() > FEW {
            return Self::Many(Nested::new::<[u8]>(items.into_iter()));
        }
        Self::Few {
            lengths: lengths.into_iter().collect(),
            table: items.into_iter().collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few { lengths, .. } => lengths.is_empty(),
            Self::Many(_) => false,
        }
    }

    /// Calls `found` with the values of every prefix of `text`.
    pub(super) fn of(&self, text: &[u8], mut found: impl FnMut(&V)) {
        match self {
            Self::Few { lengths, table } => {
                let prefixes = lengths.iter().map_while(|length| text.get(..*length));
                prefixes.filter_map(|prefix| table.get(prefix)).for_each(found);
            }
            Self::Many(nested) => nested.covering(text).for_each(&mut found),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_exactly_the_prefixes(keys in prop::collection::btree_set("[ab]{0,14}", 0..40), value in "[ab]{0,16}") {
            let table = Prefixes::new(keys.iter().map(|key| (key.as_bytes().into(), key)).collect());
            let mut found = Vec::new();
            table.of(value.as_bytes(), |key| found.push((*key).clone()));
            found.sort();
            let expected: Vec<_> = keys.iter().filter(|key| value.starts_with(&***key)).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
