//! Ctrl-C and SIGTERM: everything is removed, then the program ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::run;

/// Process-wide because signals are.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Begins to watch; `say` tells the user why the program ends.
///
/// Call it before any other thread is there, so that all inherit the blocked signals.
///
/// # Errors
/// The signals cannot be blocked.
pub fn watch(say: fn(&str)) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    std::thread::spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        INTERRUPTED.store(true, Ordering::Release);
        say(&format!("{signal}: removing everything"));
        // The other thread may be making something at this very moment: look again until nothing is left.
        let mut code = 1;
        for _ in 0..5 {
            if run::clean_own().is_ok() {
                code = 128 + signal as i32;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        std::process::exit(code);
    });
    Ok(())
}

/// Leaves the end of the program to the watching thread when it has begun to clean.
pub fn wait_if_interrupted() {
    while INTERRUPTED.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
    }
}
