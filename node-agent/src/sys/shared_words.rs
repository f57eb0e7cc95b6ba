//! Memory that this process and the kernel's programs both write: a `BPF_F_MMAPABLE` array, as 64-bit words.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsRawFd as _, BorrowedFd, RawFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

/// A mapped array. The mapping holds the map; its descriptor may be closed.
#[derive(Debug)]
pub(crate) struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
    bytes: NonZeroUsize,
}

// SAFETY: the memory belongs to the mapping, which lives as long as this; it is reached through atomics only.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words` words of an array whose elements are whole words.
    pub(crate) fn map(array: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(words * size_of::<AtomicU64>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Self::new(words, bytes, libc::MAP_SHARED, array.as_raw_fd())
    }

    /// Memory of this process alone, for tests that have no array.
    #[cfg(test)]
    pub(crate) fn anonymous(words: usize) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(words * size_of::<AtomicU64>())
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Self::new(words, bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn new(words: usize, bytes: NonZeroUsize, flags: libc::c_int, fd: RawFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; it replaces none. The kernel rounds its length up to
        // whole pages, as it does an array's memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes.get(), access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Self { start, words, bytes })
    }

    /// One word; `None` beyond the end.
    pub(crate) fn word(&self, at: usize) -> Option<&AtomicU64> {
        if at >= self.words {
            return None;
        }
        // SAFETY: within the mapping, which is page aligned and lives as long as `self`; the programs write these words
        // atomically, or whole where only one of them does.
        Some(unsafe { self.start.add(at).as_ref() })
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, of exactly this length; no reference into it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes.get()) };
    }
}
