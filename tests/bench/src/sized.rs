//! Rows of what was measured at sizes: of the policy core, and of everything.

use anyhow::{Context, Result};
use serde::Serialize;

use crate::statistics::median;

/// One metric of one case at one size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    /// Of what the case says.
    pub(crate) n: u32,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// The median of `runs`.
    pub(crate) value: f64,
    /// In the order in which they were taken.
    pub(crate) runs: Vec<f64>,
}

impl Row {
    /// # Errors
    /// There are no runs.
    pub(crate) fn new(
        case: &'static str,
        n: u32,
        metric: &'static str,
        unit: &'static str,
        runs: Vec<f64>,
    ) -> Result<Self> {
        let value = median(&runs).with_context(|| format!("{case} {n}: {metric} was never measured"))?;
        Ok(Self {
            case,
            n,
            metric,
            unit,
            value,
            runs,
        })
    }

    /// The lowest and the highest run, for people.
    pub(crate) fn spread(&self) -> String {
        let low = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.runs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        format!("({low:.1}..{high:.1})")
    }
}
