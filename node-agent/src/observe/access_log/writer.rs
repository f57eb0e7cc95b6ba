//! The thread that writes the log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use super::output::Output;
use super::queue::Queue;
use super::{Entry, Format, format};

/// Bytes formatted before they are written: a batch of thousands of lines must not double its memory as text.
const CHUNK: usize = 64 * 1024;

/// What the log tells of itself.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) dropped: AtomicU64,
    /// Somebody wants the file opened anew.
    pub(super) reopen: AtomicBool,
}

/// The thread's side.
pub(super) struct Writer {
    pub(super) queue: Arc<Queue<Entry>>,
    pub(super) counts: Arc<Counts>,
    pub(super) output: Output,
    pub(super) format: Format,
    /// Lost lines that a line of the log has told of.
    pub(super) reported: u64,
}

impl Writer {
    /// Until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut batch = VecDeque::new();
        let mut chunk = String::new();
        while self.queue.take(&mut batch) {
            self.output
                .follow(self.counts.reopen.swap(false, Ordering::Relaxed));
            self.report_losses();
            let mut lines = 0;
            while let Some(entry) = batch.pop_front() {
                format::line(&mut chunk, &entry, self.format);
                lines += 1;
                if chunk.len() >= CHUNK {
                    self.write(&mut chunk, &mut lines);
                }
            }
            self.write(&mut chunk, &mut lines);
            // Lines lost while this batch was in hand may be followed by none for a long time.
            self.report_losses();
            batch.shrink_to(1024);
        }
    }

    fn write(&mut self, chunk: &mut String, lines: &mut u64) {
        if chunk.is_empty() {
            return;
        }
        let written = self.output.write(chunk);
        self.counts.written.fetch_add(written, Ordering::Relaxed);
        self.counts
            .dropped
            .fetch_add(lines.saturating_sub(written), Ordering::Relaxed);
        chunk.clear();
        *lines = 0;
    }

    /// A line that says how many are missing before it, once it can be written.
    fn report_losses(&mut self) {
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        let lost = dropped.saturating_sub(self.reported);
        if lost == 0 {
            return;
        }
        let mut line = String::new();
        format::losses(&mut line, SystemTime::now(), lost, self.format);
        if self.output.write(&line) == 1 {
            self.reported = dropped;
        }
    }
}
