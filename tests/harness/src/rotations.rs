//! How often the certificates of workloads were renewed, seen by their serial numbers.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::mesh::Mesh;

/// Certificates that are followed. [`Rotations::look`] more often than they are renewed.
#[derive(Debug, Default)]
pub struct Rotations {
    followed: Vec<Followed>,
}

#[derive(Debug)]
struct Followed {
    node: u8,
    identity: String,
    /// In the order in which they were seen.
    serials: Vec<String>,
}

impl Rotations {
    /// Follows the certificate of `identity` at the agent of `node`.
    pub fn follow(&mut self, node: u8, identity: String) {
        self.followed.push(Followed {
            node,
            identity,
            serials: Vec::new(),
        });
    }

    /// Asks the agents.
    ///
    /// # Errors
    /// An agent does not answer, or holds no certificate of an identity.
    pub fn look(&mut self, mesh: &Mesh) -> Result<()> {
        for followed in &mut self.followed {
            let row = certificate(mesh, followed.node, &followed.identity)?;
            let serial = row["serial"].as_str().context("no serial number")?;
            if followed.serials.last().is_none_or(|last| last != serial) {
                followed.serials.push(serial.to_owned());
            }
        }
        Ok(())
    }

    /// How often each was renewed while it was followed, in the order of [`Rotations::follow`].
    #[must_use]
    pub fn counts(&self) -> Vec<usize> {
        let renewals = |followed: &Followed| followed.serials.len().saturating_sub(1);
        self.followed.iter().map(renewals).collect()
    }

    /// The least of [`Rotations::counts`].
    #[must_use]
    pub fn fewest(&self) -> usize {
        self.counts().into_iter().min().unwrap_or(0)
    }
}

/// The certificate of `identity` that the agent of `node` holds, as `tramline certificates` shows it.
///
/// # Errors
/// The agent does not answer, or holds none.
pub fn certificate(mesh: &Mesh, node: u8, identity: &str) -> Result<Value> {
    let report = mesh.agent(node)?.cli("certificates")?;
    let rows = report["certificates"].as_array().into_iter().flatten();
    rows.into_iter()
        .find(|row| row["identity"] == identity)
        .cloned()
        .with_context(|| format!("node{node} has no certificate of {identity}: {report}"))
}
