//! Where configuration comes from. Today: a directory of Kubernetes and Istio manifests.

pub mod files;
pub mod manifest;

use std::fmt;

pub use files::FilesSource;
use serde::Serialize;
use thiserror::Error;
use tramline_core::object::ObjectError;

/// One thing that is wrong with the configuration, in the words of somebody who has to repair it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ConfigError {
    /// `FILE:LINE`, `FILE`, or the directory.
    pub place: String,
    /// `KIND NAMESPACE/NAME`, where that much could be read.
    pub object: Option<String>,
    /// Path of the field.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl ConfigError {
    /// An error about a place as a whole.
    pub fn at(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            object: None,
            field: None,
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl From<ObjectError> for ConfigError {
    fn from(error: ObjectError) -> Self {
        let ObjectError {
            mut object,
            field,
            problem,
        } = error;
        let place = object
            .origin
            .take()
            .map(|origin| origin.to_string())
            .unwrap_or_default();
        Self {
            place,
            object: Some(object.to_string()),
            field: Some(field),
            problem,
        }
    }
}

/// Everything that is wrong; never empty. The configuration is taken as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize)]
#[error("{}", self.listed())]
pub struct ConfigErrors(Vec<ConfigError>);

/// What a log line or a status page shows; the rest is counted.
const SHOWN: usize = 100;

impl ConfigErrors {
    /// Sorted and without repetitions, so that two attempts read the same.
    pub fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort();
        errors.dedup();
        Self(errors)
    }

    /// The errors, sorted by place.
    pub fn errors(&self) -> &[ConfigError] {
        &self.0
    }

    fn listed(&self) -> String {
        let mut lines: Vec<String> = self.0.iter().take(SHOWN).map(ConfigError::to_string).collect();
        if self.0.len() > SHOWN {
            lines.push(format!("and {} more", self.0.len() - SHOWN));
        }
        lines.join("\n")
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}
