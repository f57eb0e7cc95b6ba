//! A map in many parts: a snapshot that differs from the one before by one entry copies one part and shares the rest.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Parts. A change copies this many pointers and one part: with 100,000 entries some 500 of the one and 200 of the other.
const SHARDS: usize = 512;

#[derive(Debug, Clone)]
pub(super) struct Sharded<K, V>(Arc<Vec<Arc<HashMap<K, V>>>>);

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self(Arc::new(Vec::new()))
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Sharded<K, V> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(shard(key))?.get(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().flat_map(|shard| shard.values())
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        let shards = Arc::make_mut(&mut self.0);
        if shards.is_empty() {
            shards.resize_with(SHARDS, Arc::default);
        }
        if let Some(shard) = shards.get_mut(shard(&key)) {
            Arc::make_mut(shard).insert(key, value);
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        // Without this look a map that lacks the key would be copied.
        self.get(key)?;
        let shard = Arc::make_mut(&mut self.0).get_mut(shard(key))?;
        Arc::make_mut(shard).remove(key)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for Sharded<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut map = Self::default();
        for (key, value) in items {
            map.insert(key, value);
        }
        map
    }
}

fn shard(key: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_copy_leaves_the_first_as_it_was() {
        let first: Sharded<u32, u32> = (0..5000).map(|key| (key, key)).collect();
        let mut second = first.clone();
        second.insert(7, 70);
        assert_eq!((second.remove(&8), second.remove(&9000)), (Some(8), None));
        assert_eq!((first.get(&7), first.get(&8)), (Some(&7), Some(&8)));
        assert_eq!((second.get(&7), second.get(&8)), (Some(&70), None));
        assert_eq!((first.values().count(), second.values().count()), (5000, 4999));
        assert_eq!(Sharded::<u32, u32>::default().get(&1), None);
    }
}
