//! Clusters that other agents say they are in: whoever is let into the mesh can say any name, so their number is bounded.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tramline_core::cluster::ClusterName;

/// More than a mesh of many clusters has. What finds no room is counted under `other`, its connections as all others.
pub(super) const MOST: usize = 64;

/// The names that have a label value of their own. They are not forgotten: a label set that is gone comes back under
/// the same name.
#[derive(Debug, Default)]
pub(super) struct ForeignClusters(Mutex<HashSet<ClusterName>>);

impl ForeignClusters {
    /// Whether the name is one of them, which it becomes while there is room.
    pub(super) fn admit(&self, name: &ClusterName) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(name) || known.len() < MOST && known.insert(name.clone())
    }
}
