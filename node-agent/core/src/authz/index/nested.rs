//! A table of keys of which any two either lie one within the other or apart: prefixes of text, ranges of addresses.
//! It answers with all that cover a value, at the cost of one binary search and one step per answer or near miss.

use std::borrow::Borrow;

/// Whether a key covers another one. Keys that are covered sort after the one that covers them, and nothing that is
/// not covered sorts between.
pub(super) trait Covers: Ord {
    fn covers(&self, other: &Self) -> bool;
}

impl Covers for [u8] {
    fn covers(&self, other: &Self) -> bool {
        other.starts_with(self)
    }
}

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    /// The narrowest key that covers this one.
    parent: Option<usize>,
    value: V,
}

#[derive(Debug, Clone)]
pub(super) struct Nested<K, V> {
    entries: Vec<Entry<K, V>>,
}

impl<K, V> Default for Nested<K, V> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<K, V> Nested<K, V> {
    /// The table of keys that are all different.
    pub(super) fn new<Q>(items: impl Iterator<Item = (K, V)>) -> Self
    where
        K: Borrow<Q>,
        Q: Covers + ?Sized,
    {
        let mut items: Vec<(K, V)> = items.collect();
        items.sort_by(|(a, _), (b, _)| a.borrow().cmp(b.borrow()));
        let mut entries: Vec<Entry<K, V>> = Vec::with_capacity(items.len());
        for (key, value) in items {
            let mut parent = entries.len().checked_sub(1);
            while let Some(index) = parent
                && let Some(entry) = entries.get(index)
                && !entry.key.borrow().covers(key.borrow())
            {
                parent = entry.parent;
            }
            entries.push(Entry { key, parent, value });
        }
        Self { entries }
    }

    /// The values of all keys.
    pub(super) fn all(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|entry| &entry.value)
    }

    /// The values of every key that covers `value`.
    pub(super) fn covering<'a, Q>(&'a self, value: &'a Q) -> impl Iterator<Item = &'a V>
    where
        K: Borrow<Q>,
        Q: Covers + ?Sized,
    {
        // Whatever covers the value sorts before it, and covers all that stands between the two: so it is the last
        // key that is not greater, or one of those above that key.
        let after = self.entries.partition_point(|entry| entry.key.borrow() <= value);
        let mut next = after.checked_sub(1);
        std::iter::from_fn(move || {
            let entry = self.entries.get(next?)?;
            next = entry.parent;
            Some(entry)
        })
        .filter(move |entry| entry.key.borrow().covers(value))
        .map(|entry| &entry.value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_exactly_the_prefixes(keys in prop::collection::btree_set("[ab]{0,5}", 0..20), value in "[ab]{0,7}") {
            let table: Nested<Box<[u8]>, String> =
                Nested::new::<[u8]>(keys.iter().map(|key| (key.as_bytes().into(), key.clone())));
            let mut found: Vec<_> = table.covering(value.as_bytes()).cloned().collect();
            found.sort();
            let expected: Vec<_> = keys.iter().filter(|key| value.starts_with(&***key)).cloned().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
