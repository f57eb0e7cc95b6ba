//! What the parsers of foreign bytes promise, as functions of any bytes: [`TARGETS`].
//!
//! Two things drive them: `tests/short.rs`, a fixed number of mutations of `corpus/`, the same in every run, among the
//! unit tests; and `cargo xtask fuzz`, other mutations for as long as one likes.
#![expect(
    clippy::unwrap_used,
    reason = "a property that cannot be set up has failed, and failing is a target's only word"
)]

pub mod corpus;
mod input;
#[path = "../../../node-agent/core/tests/core/make.rs"]
#[expect(dead_code, reason = "the tests of the core use the rest")]
mod make;
pub mod mutate;
#[path = "../../../node-agent/core/tests/core/oracle/naive.rs"]
mod naive;
mod targets;
pub mod world;

use std::alloc::System;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

pub use targets::TARGETS;

/// The longest input that is tried. Bounds that only longer ones reach have tests of their own beside the parsers.
pub const MAX_INPUT: usize = 16 << 10;
/// Longer than any input of that size needs on a busy machine: only what grows out of proportion takes it.
const MAX_TIME: Duration = Duration::from_secs(10);

static ALONE: Mutex<()> = Mutex::new(());

/// Counts what a target allocates.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A parser and its promises.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its directory in `corpus/`.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub check: fn(&[u8]),
    /// Words that a blind mutation would hardly find.
    pub words: &'static [&'static str],
    /// Mutations in the short run.
    pub mutations: u32,
    /// What one input may allocate in all, freed or not: so many bytes, and so many for each byte of the input.
    pub memory: (usize, usize),
}

impl Target {
    /// Checks the promises for one input, and that it took neither much time nor much memory.
    ///
    /// # Panics
    /// A promise is broken.
    pub fn run(&self, input: &[u8]) {
        let input = input.get(..MAX_INPUT).unwrap_or(input);
        // The count is the process's: two at a time would count each other's.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = Region::new(ALLOCATOR);
        let began = Instant::now();
        (self.check)(input);
        let (took, allocated) = (began.elapsed(), memory.change().bytes_allocated);
        assert!(took < MAX_TIME, "{} bytes took {took:?}", input.len());
        let (base, per_byte) = self.memory;
        let allowed = base + per_byte * input.len();
        assert!(
            allocated <= allowed,
            "{} bytes made it allocate {allocated}, more than {allowed}",
            input.len()
        );
    }
}

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
