//! Names for what a socket call returned, the same for tests on every path.

use std::io::{Error, ErrorKind};

use nix::errno::Errno;

/// `ECONNREFUSED`, `ECONNRESET`, ...; `timeout` when our own limit ended the wait.
pub(crate) fn name(error: &Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, None) => "timeout".to_owned(),
        (_, Some(code)) if Errno::from_raw(code) == Errno::EAGAIN => "timeout".to_owned(),
        (_, Some(code)) => format!("{:?}", Errno::from_raw(code)),
        (kind, None) => format!("{kind:?}"),
    }
}
