//! Diagnostics of the programs (debug builds of the object only), in this process's log.

use crate::sys::readiness;
use aya_log::EbpfLogger;
use std::io;

/// The reader of the diagnostics, which hands them to the log of this process.
pub(crate) type Logger = EbpfLogger<&'static dyn log::Log>;

/// Writes them to the log as they come; returns only if waiting fails.
pub(crate) async fn log(logger: Logger) -> io::Result<()> {
    let mut logger = readiness::of_map(logger)?;
    loop {
        let mut ready = logger.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}
