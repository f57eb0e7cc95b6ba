//! Diagnostics of the programs by aya-log, at debug level. A release build has none: they cost a ring buffer record each.

/// Logs what a program did with one connection.
#[cfg(feature = "log")]
macro_rules! diagnose {
    ($ctx:expr, $($arg:tt)*) => {
        aya_log_ebpf::debug!($ctx, $($arg)*)
    };
}

/// Logs nothing in this build.
#[cfg(not(feature = "log"))]
macro_rules! diagnose {
    ($ctx:expr, $($arg:tt)*) => {};
}
