//! The bounded queue between connections and the one thread that writes the log.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A bounded queue: `push` never waits, it refuses; one consumer takes everything at once.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// What the consumer took and has not finished writing.
    in_hand: usize,
    closed: bool,
    /// The consumer has something to do though nothing waits.
    woken: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            in_hand: 0,
            closed: false,
            woken: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            capacity,
        }
    }

    /// Adds `item`, or gives it back when the queue is full or closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.lock();
        // What is being written still occupies memory, so it counts.
        if state.closed || state.waiting.len() + state.in_hand >= self.capacity {
            return Err(item);
        }
        state.waiting.push_back(item);
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits for items, or to be woken, and swaps what there is into `batch`, which must be empty; `false` once closed
    /// and drained.
    pub(super) fn take(&self, batch: &mut VecDeque<T>) -> bool {
        let mut state = self.lock();
        state.in_hand = 0;
        self.changed.notify_all();
        while state.waiting.is_empty() && !state.woken {
            if state.closed {
                return false;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.woken = false;
        std::mem::swap(&mut state.waiting, batch);
        state.in_hand = batch.len();
        true
    }

    /// Items that are queued or in hand.
    pub(super) fn len(&self) -> usize {
        let state = self.lock();
        state.waiting.len() + state.in_hand
    }

    /// Has the consumer look up though nothing waits for it.
    pub(super) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_all();
    }

    /// Accepts nothing more; what is queued is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits until everything pushed so far has been written; `false` when `limit` passed first.
    pub(super) fn wait_empty(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.waiting.is_empty() || state.in_hand > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// A panic while the lock is held cannot leave the state half changed: every change above is one step.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_and_counts_what_is_being_written() {
        let queue = Queue::new(2);
        assert_eq!(queue.push(1), Ok(()));
        assert_eq!(queue.push(2), Ok(()));
        assert_eq!(queue.push(3), Err(3));
        let mut batch = VecDeque::new();
        assert!(queue.take(&mut batch));
        assert_eq!(batch, [1, 2]);
        assert_eq!(queue.push(3), Err(3), "two lines are still in hand");
        assert_eq!(queue.len(), 2);
        assert!(!queue.wait_empty(Duration::from_millis(10)));
        queue.close();
        assert!(!queue.take(&mut VecDeque::new()), "closed and drained");
        assert!(queue.wait_empty(Duration::ZERO));
        assert_eq!(queue.push(4), Err(4));
    }

    #[test]
    fn a_consumer_is_woken_once_without_items() {
        let queue = Queue::<u8>::new(2);
        queue.wake();
        let mut batch = VecDeque::new();
        assert!(queue.take(&mut batch));
        assert!(batch.is_empty());
        queue.close();
        assert!(!queue.take(&mut batch));
    }
}
