//! Waiting for a condition with an end to it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(20);

/// How many times longer this machine may take for anything than one that is not emulated.
const PATIENCE: &str = "TRAMLINE_TEST_PATIENCE";

/// The longest that a wait of `limit` may take here. Only waits for what must come at last are stretched: nothing that a test
/// measures.
#[must_use]
pub fn stretched(limit: Duration) -> Duration {
    static PATIENCE_HERE: OnceLock<u32> = OnceLock::new();
    let times = PATIENCE_HERE.get_or_init(|| {
        let said = std::env::var(PATIENCE).ok();
        said.and_then(|said| said.parse().ok()).unwrap_or(1).clamp(1, 60)
    });
    limit * *times
}

/// Calls `probe` until it returns a value, at most for `limit`, [`stretched`].
///
/// # Errors
/// `what` was not there in time, or `probe` failed.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let limit = stretched(limit);
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain for {what}", limit.as_secs_f64());
        }
        std::thread::sleep(STEP);
    }
}
