//! The eBPF object, embedded by `build.rs`.

use super::KernelError;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tramline-ebpf.o"));

/// The object's bytes.
pub(crate) fn bytes() -> Result<&'static [u8], KernelError> {
    if OBJECT.is_empty() {
        Err(KernelError::NoObject)
    } else {
        Ok(OBJECT)
    }
}
