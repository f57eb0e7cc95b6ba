//! A bounded table whose entries end by themselves.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// Entries with an end. Where there is no room for another one, that which would have ended first makes it.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    entries: HashMap<K, (Duration, V)>,
    by_end: BTreeSet<(Duration, K)>,
    capacity: usize,
}

impl<K: Clone + Eq + Hash + Ord, V> Expiring<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_end: BTreeSet::new(),
            capacity,
        }
    }

    pub(super) fn get(&self, key: &K, now: Duration) -> Option<&V> {
        self.entries
            .get(key)
            .filter(|(end, _)| *end > now)
            .map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, end: Duration, now: Duration) {
        self.remove(&key);
        while self
            .by_end
            .first()
            .is_some_and(|(first, _)| *first <= now || self.entries.len() >= self.capacity)
        {
            if let Some((_, key)) = self.by_end.pop_first() {
                self.entries.remove(&key);
            }
        }
        self.by_end.insert((end, key.clone()));
        self.entries.insert(key, (end, value));
    }

    /// Whether it was there, ended or not.
    pub(super) fn remove(&mut self, key: &K) -> bool {
        let Some((end, _)) = self.entries.remove(key) else {
            return false;
        };
        self.by_end.remove(&(end, key.clone()));
        true
    }

    pub(super) fn is_empty(&self, now: Duration) -> bool {
        self.by_end.last().is_none_or(|(end, _)| *end <= now)
    }

    /// How many entries have not ended.
    pub(super) fn len(&self, now: Duration) -> usize {
        self.by_end.iter().rev().take_while(|(end, _)| *end > now).count()
    }
}

#[cfg(test)]
mod tests {
    use super::Expiring;
    use std::time::Duration;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn entries_end_and_can_be_put_off() {
        let mut table = Expiring::new(8);
        table.insert("a", 1, s(5), s(0));
        assert_eq!((table.get(&"a", s(4)), table.get(&"a", s(5))), (Some(&1), None));
        table.insert("a", 2, s(9), s(4));
        assert_eq!((table.get(&"a", s(8)), table.len(s(8))), (Some(&2), 1));
        assert_eq!((table.get(&"a", s(9)), table.len(s(9))), (None, 0));
        // What has ended makes room without being asked for.
        table.insert("b", 3, s(20), s(10));
        assert_eq!((table.entries.len(), table.by_end.len()), (1, 1));
        table.remove(&"b");
        assert_eq!((table.entries.len(), table.by_end.len()), (0, 0));
    }

    #[test]
    fn a_full_table_gives_up_what_would_end_first() {
        let mut table = Expiring::new(3);
        for (key, end) in [("late", 30), ("early", 10), ("middle", 20), ("new", 25)] {
            table.insert(key, (), s(end), s(0));
        }
        assert_eq!(table.len(s(0)), 3);
        assert!(table.get(&"early", s(0)).is_none());
        assert!(
            ["late", "middle", "new"]
                .iter()
                .all(|key| table.get(key, s(0)).is_some())
        );
    }
}
