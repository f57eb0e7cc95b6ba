//! The bounded queue between connections and the one thread that writes the log.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After the first line: its followers are written with it, and a thousand connections a second wake the consumer a hundred
/// times, not a thousand.
const GATHER: Duration = Duration::from_millis(10);

/// A bounded queue: `push` never waits, it refuses; one consumer takes everything at once.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// Something for the consumer.
    filled: Condvar,
    /// Something for who waits until all is written.
    emptied: Condvar,
    capacity: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// What the consumer took and has not finished writing.
    in_hand: usize,
    closed: bool,
    /// The consumer has something to do though nothing waits, or must not rest.
    woken: bool,
    /// With so many items waiting the consumer is told: 1 while it has nothing to do, more while it gathers.
    tell_at: Option<usize>,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            in_hand: 0,
            closed: false,
            woken: false,
            tell_at: None,
        };
        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
            emptied: Condvar::new(),
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
        let tell = state.tell_at.is_some_and(|at| state.waiting.len() >= at);
        if tell {
            state.tell_at = None;
        }
        drop(state);
        // A system call, and another thread that runs: not for every item.
        if tell {
            self.filled.notify_all();
        }
        Ok(())
    }

    /// Waits for items and a moment more for those that follow, or to be woken, and swaps what there is into `batch`, which
    /// must be empty; `false` once closed and drained.
    pub(super) fn take(&self, batch: &mut VecDeque<T>) -> bool {
        let mut state = self.lock();
        state.in_hand = 0;
        self.emptied.notify_all();
        while state.waiting.is_empty() && !state.woken {
            if state.closed {
                return false;
            }
            state.tell_at = Some(1);
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (deadline, enough) = (Instant::now() + GATHER, self.capacity.div_ceil(4));
        while !state.woken && !state.closed && state.waiting.len() < enough {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                break;
            };
            state.tell_at = Some(enough);
            state = self
                .filled
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.tell_at = None;
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
        self.filled.notify_all();
    }

    /// Accepts nothing more; what is queued is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Waits until everything pushed so far has been written; `false` when `limit` passed first.
    pub(super) fn wait_empty(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.waiting.is_empty() || state.in_hand > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            if !state.waiting.is_empty() {
                state.woken = true;
                self.filled.notify_all();
            }
            state = self
                .emptied
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
    fn what_comes_together_is_taken_together_and_a_quarter_full_is_enough() {
        let queue = Queue::new(16);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                let mut batch = VecDeque::new();
                let mut sizes = Vec::new();
                while queue.take(&mut batch) {
                    sizes.push(batch.len());
                    batch.clear();
                }
                sizes
            });
            for burst in 1..=8 {
                // Nobody waits 10 ms here unless the machine does not run this thread for as long.
                for item in 0..4 {
                    assert_eq!(queue.push(item), Ok(()));
                }
                assert!(queue.wait_empty(Duration::from_secs(10)), "burst {burst}");
            }
            queue.close();
            let sizes = consumer.join().unwrap();
            assert_eq!(sizes.iter().sum::<usize>(), 32);
            assert!(sizes.len() < 32, "each was taken by itself: {sizes:?}");
        });
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
