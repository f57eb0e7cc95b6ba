//! A network namespace held by descriptor, and doing something inside it.

use nix::sched::{CloneFlags, setns};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

/// A network namespace: it lives at least as long as this.
#[derive(Debug)]
pub(crate) struct Netns {
    namespace: File,
}

impl Netns {
    /// Opens `/run/netns/NAME`, `/proc/PID/ns/net` or any other file of a network namespace.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            namespace: File::open(path)?,
        })
    }

    /// The namespace of this process.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/ns/net"))
    }

    /// Whether `path` leads to this namespace. While this is held, its inode number is nobody else's.
    pub(crate) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let (own, there) = (self.namespace.metadata()?, std::fs::metadata(path)?);
        Ok(own.dev() == there.dev() && own.ino() == there.ino())
    }

    /// The cookie: unique from boot to shutdown (`SO_NETNS_COOKIE`, kernel ≥ 5.14).
    pub(crate) fn cookie(&self, home: &Netns) -> io::Result<u64> {
        self.run(home, || {
            let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None)?;
            super::socket::netns_cookie(&socket)
        })
    }

    /// Does `work` on this thread inside the namespace, then comes back to `home`.
    ///
    /// `work` must be short and synchronous: the thread may be one of the runtime's. Sockets, netlink connections
    /// and files of `/proc/sys/net` opened by it belong to the namespace for good.
    pub(crate) fn run<T>(&self, home: &Netns, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let back = Return { home };
        let result = work();
        drop(back);
        result
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Comes back to `home` when dropped, also when `work` panics.
struct Return<'a> {
    home: &'a Netns,
}

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if let Err(error) = setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET) {
            // A thread left in a pod's namespace would open the next socket under the wrong identity.
            tracing::error!(%error, "cannot return to the agent's network namespace; stopping");
            std::process::abort();
        }
    }
}
