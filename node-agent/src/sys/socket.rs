//! Socket options without a safe wrapper elsewhere.

use std::{io, os::fd::AsRawFd};

/// `SO_NETNS_COOKIE` of uapi `asm-generic/socket.h`.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Cookie of the network namespace a socket belongs to.
pub(crate) fn netns_cookie(socket: &socket2::Socket) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: `cookie` and `len` are live and aligned for the call; the kernel writes at most `len` bytes.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if code == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
