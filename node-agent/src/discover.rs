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
    /// Name of the file in the directory, or the directory.
    pub file: String,
    /// Line of the field; of the object, where the field is not written at all.
    pub line: Option<usize>,
    /// Line on which the object begins.
    pub object_line: Option<usize>,
    /// `KIND NAMESPACE/NAME`, where that much could be read.
    pub object: Option<String>,
    /// Path of the field.
    pub field: Option<String>,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl ConfigError {
    /// An error about a file or a directory as a whole.
    pub fn at(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line: None,
            object_line: None,
            object: None,
            field: None,
            problem: problem.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line.or(self.object_line) {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        if let Some(object) = &self.object {
            f.write_str(object)?;
            match self.object_line {
                Some(line) if self.line.is_some_and(|field| field != line) => write!(f, " (line {line}): ")?,
                _ => f.write_str(": ")?,
            }
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
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
        let origin = object.origin.take().unwrap_or_default();
        let (file, line) = match origin.rsplit_once(':') {
            Some((file, line)) => (file, line.parse().ok()),
            None => (&*origin, None),
        };
        Self {
            file: file.to_owned(),
            line: None,
            object_line: line,
            object: Some(match &*object.name {
                "" => object.kind.to_string(),
                _ => object.to_string(),
            }),
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
