//! The access log: one line per connection when it ends, written by a thread of its own.
//!
//! The data path only queues a record. When whoever reads the log is slow, lines are dropped and counted; a
//! connection never waits for a log (a peer's log buffer that blocks stops its data path).

mod escape;
mod format;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::record::{ConnectionInfo, Outcome};
use queue::Queue;

/// Lines that may wait to be written; about 30 MiB when every one is in use.
pub const QUEUE_LINES: usize = 65_536;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file, which is made with mode 0640.
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
    #[error("access log {path}: {source}; check that the directory exists and is writable")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
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
    /// Application bytes towards the destination.
    pub(super) to_destination: u64,
    /// Application bytes towards the source.
    pub(super) to_source: u64,
    pub(super) info: ConnectionInfo,
    pub(super) outcome: Outcome,
}

/// A running access log.
pub struct AccessLog {
    queue: Option<Arc<Queue<Entry>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Opens the destination and starts the writer.
    ///
    /// # Errors
    /// When the file cannot be opened or no thread be started.
    pub fn start(destination: &Destination, format: Format) -> Result<Self, AccessLogError> {
        let output: Box<dyn Write + Send> = match destination {
            Destination::Off => {
                return Ok(Self {
                    queue: None,
                    counts: Arc::default(),
                });
            }
            Destination::Stdout => Box::new(io::stdout()),
            Destination::File(path) => Box::new(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(0o640)
                    .open(path)
                    .map_err(|source| AccessLogError::Open {
                        path: path.clone(),
                        source,
                    })?,
            ),
        };
        Self::to_writer(output, format, QUEUE_LINES)
    }

    fn to_writer(
        output: Box<dyn Write + Send>,
        format: Format,
        lines: usize,
    ) -> Result<Self, AccessLogError> {
        let queue = Arc::new(Queue::new(lines));
        let counts = Arc::<Counts>::default();
        let writer = Writer {
            queue: Arc::clone(&queue),
            counts: Arc::clone(&counts),
            output,
            format,
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

/// The thread's side.
struct Writer {
    queue: Arc<Queue<Entry>>,
    counts: Arc<Counts>,
    output: Box<dyn Write + Send>,
    format: Format,
}

/// Bytes formatted before they are written: a batch of thousands of lines must not double its memory as text.
const CHUNK: usize = 64 * 1024;

impl Writer {
    fn run(mut self) {
        let mut batch = VecDeque::new();
        let mut chunk = String::new();
        while self.queue.take(&mut batch) {
            let mut lines = 0;
            while let Some(entry) = batch.pop_front() {
                format::line(&mut chunk, &entry, self.format);
                lines += 1;
                if chunk.len() >= CHUNK {
                    self.write(&mut chunk, &mut lines);
                }
            }
            self.write(&mut chunk, &mut lines);
            batch.shrink_to(1024);
        }
    }

    fn write(&mut self, chunk: &mut String, lines: &mut u64) {
        let written = self
            .output
            .write_all(chunk.as_bytes())
            .and_then(|()| self.output.flush());
        let count = if written.is_ok() {
            &self.counts.written
        } else {
            &self.counts.dropped
        };
        count.fetch_add(*lines, Ordering::Relaxed);
        chunk.clear();
        *lines = 0;
    }
}
