//! Names for what a socket call returned, the same for tests on every path.

use std::io::{Error, ErrorKind};

use nix::errno::Errno;

/// `ECONNREFUSED`, `ECONNRESET`, ...; `timeout` when our own limit ended the wait.
pub(crate) fn name(error: &Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::WouldBlock | ErrorKind::TimedOut, None) => "timeout".to_owned(),
        // A blocking connect whose SO_SNDTIMEO ran out says EINPROGRESS.
        (_, Some(code)) if matches!(Errno::from_raw(code), Errno::EAGAIN | Errno::EINPROGRESS) => {
            "timeout".to_owned()
        }
        (_, Some(code)) => format!("{:?}", Errno::from_raw(code)),
        (kind, None) => format!("{kind:?}"),
    }
}
