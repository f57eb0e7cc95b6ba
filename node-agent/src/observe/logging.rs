//! The agent's own log: on standard error, its level changeable while it runs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The log cannot be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a level or a list of directives.
    #[error("log level {directives:?}: {reason}; use error, warn, info, debug, trace or MODULE=LEVEL,...")]
    Level {
        /// What was given.
        directives: String,
        /// Why it was refused.
        reason: String,
    },
    /// Another log is already in place in this process.
    #[error("logging: {0}")]
    Init(String),
}

/// Changes the level of a log that is running.
#[derive(Debug, Clone)]
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    initial: Arc<str>,
    current: Arc<Mutex<String>>,
}

/// Starts the process's log; call it once, from `main`.
///
/// # Errors
/// When `level` is not understood or a log is already in place.
pub fn init(level: &str, format: LogFormat) -> Result<LogControl, LoggingError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => {
            let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                && io::IsTerminal::is_terminal(&io::stderr());
            Box::new(fmt::layer().with_ansi(colour).with_writer(io::stderr))
        }
        LogFormat::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(io::stderr)),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| LoggingError::Init(error.to_string()))?;
    Ok(LogControl {
        handle,
        initial: level.into(),
        current: Arc::new(Mutex::new(level.into())),
    })
}

/// A control of no log, for tests of what uses one.
#[cfg(test)]
pub(crate) fn detached(level: &str) -> Result<LogControl, LoggingError> {
    let (layer, handle) = reload::Layer::new(parse(level)?);
    // The handle works as long as its layer lives, which here is the rest of the test's process.
    Box::leak(Box::new(layer));
    Ok(LogControl {
        handle,
        initial: level.into(),
        current: Arc::new(Mutex::new(level.into())),
    })
}

impl LogControl {
    /// Changes the level; `reset` returns to the one at start.
    ///
    /// # Errors
    /// When `directives` is not understood; then nothing changes.
    pub fn set(&self, directives: &str) -> Result<(), LoggingError> {
        let directives = if directives == "reset" {
            &self.initial
        } else {
            directives
        };
        let filter = parse(directives)?;
        self.handle
            .reload(filter)
            .map_err(|error| LoggingError::Init(error.to_string()))?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = directives.to_owned();
        Ok(())
    }

    /// The level in use.
    pub fn current(&self) -> String {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A bare word must be a level: `EnvFilter` would take a misspelled one for the name of a module.
fn parse(directives: &str) -> Result<EnvFilter, LoggingError> {
    let refuse = |reason: String| LoggingError::Level {
        directives: directives.to_owned(),
        reason,
    };
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in directives.split(',') {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        if !levels.contains(&level) {
            return Err(refuse(format!("{level:?} is not a level")));
        }
    }
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood_and_typos_are_not() {
        for good in [
            "info",
            "off",
            "warn,tramline_node_agent=debug",
            "tramline_node_agent::observe=trace",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "tramline_node_agent", "a=loud", "info,"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_running_log_changes_its_level_and_returns() {
        let control = init("info", LogFormat::Json).unwrap();
        control.set("warn,tramline_node_agent=debug").unwrap();
        assert_eq!(control.current(), "warn,tramline_node_agent=debug");
        assert!(
            control
                .set("loud")
                .unwrap_err()
                .to_string()
                .contains("use error, warn")
        );
        assert_eq!(control.current(), "warn,tramline_node_agent=debug");
        assert!(tracing::enabled!(tracing::Level::DEBUG));
        control.set("reset").unwrap();
        assert_eq!(control.current(), "info");
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
    }
}
