//! The access log: one line per connection when it ends, written by a thread of its own.
//!
//! The data path only queues a record. When whoever reads the log is slow, lines are dropped and counted; a
//! connection never waits for a log (a peer's log buffer that blocks stops its data path).

mod escape;
#[cfg(test)]
mod fields;
mod format;
mod output;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tramline_core::cluster::ClusterName;

use super::record::{ConnectionInfo, Outcome};
use output::Output;
use queue::Queue;
use writer::{Counts, Writer};

/// Lines that may wait to be written; about 30 MiB when every one is in use.
pub const QUEUE_LINES: usize = 65_536;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file, which is made with mode 0640, and to the one put in its place when it is rotated.
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            "stdout" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object.
    Json,
    /// `key=value` pairs as in ztunnel's text log.
    Text,
}

/// The access log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be opened.
    #[error(
        "access log {path}: {source}; check that the directory exists and is writable, and that somebody \
             reads it if it is a FIFO"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no standard output.
    #[error("access log on standard output: {0}; name a file with --access-log, or off")]
    Stdout(io::Error),
    /// No thread could be started.
    #[error("access log: no thread for the writer: {0}")]
    Thread(io::Error),
}

/// Everything one line says.
#[derive(Debug)]
pub(super) struct Entry {
    /// When the connection ended.
    pub(super) time: SystemTime,
    pub(super) duration: Duration,
    /// From its arrival to both halves being open, where that is known.
    pub(super) connect: Option<Duration>,
    /// Application bytes towards the destination.
    pub(super) to_destination: u64,
    /// Application bytes towards the source.
    pub(super) to_source: u64,
    /// The agent's own.
    pub(super) cluster: ClusterName,
    pub(super) info: ConnectionInfo,
    pub(super) outcome: Outcome,
}

/// A running access log.
pub struct AccessLog {
    queue: Option<Arc<Queue<Entry>>>,
    counts: Arc<Counts>,
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or no thread be started.
    pub fn start(destination: &Destination, format: Format) -> Result<Self, AccessLogError> {
        let output = match destination {
            Destination::Off => {
                return Ok(Self {
                    queue: None,
                    counts: Arc::default(),
                });
            }
            Destination::Stdout => Output::stdout().map_err(AccessLogError::Stdout)?,
            Destination::File(path) => Output::file(path).map_err(|source| AccessLogError::Open {
                path: path.clone(),
                source,
            })?,
        };
        Self::to_output(output, format, QUEUE_LINES)
    }

    fn to_output(output: Output, format: Format, lines: usize) -> Result<Self, AccessLogError> {
        let queue = Arc::new(Queue::new(lines));
        let counts = Arc::<Counts>::default();
        let writer = Writer {
            queue: Arc::clone(&queue),
            counts: Arc::clone(&counts),
            output,
            format,
            reported: 0,
        };
        std::thread::Builder::new()
            .name("access-log".into())
            .spawn(move || writer.run())
            .map_err(AccessLogError::Thread)?;
        Ok(Self {
            queue: Some(queue),
            counts,
        })
    }

    /// Queues a line; never waits.
    pub(super) fn write(&self, entry: Entry) {
        if let Some(queue) = &self.queue
            && queue.push(entry).is_err()
        {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines queued so far are written; `false` when `limit` passed first. Blocks: call it at
    /// shutdown, not from a worker.
    pub fn flush(&self, limit: Duration) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.wait_empty(limit))
    }

    /// Has a file opened anew, such as after it was rotated; the writer also notices by itself within a second of the
    /// next line.
    pub fn reopen(&self) {
        self.counts.reopen.store(true, Ordering::Relaxed);
        if let Some(queue) = &self.queue {
            queue.wake();
        }
    }

    /// Lines that wait to be written or are being written.
    pub fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.len())
    }

    /// Lines written since start.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// Lines lost since start: the queue was full or the write failed.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("on", &self.queue.is_some())
            .field("counts", &self.counts)
            .finish()
    }
}
