//! Error codes of RST_STREAM with which one agent tells the other why it cut a stream.
//!
//! A refusal before the stream is up travels in a header of the answer. After it nothing but DATA may be sent on a
//! CONNECT stream (RFC 9113, section 8.5), trailers included; what is left is the error code. Codes that a receiver
//! does not know have no special meaning to it (section 7), so that other implementations of HBONE see the reset that
//! they would see without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use h2::Reason as ResetCode;
use tramline_core::reason::Reason;

/// Reasons that a connection which was let through is cut for. The codes are `tl` and a number; they never change.
const CODES: [(u32, Reason); 4] = [
    (0x746c_0001, Reason::PolicyDenied),
    (0x746c_0002, Reason::UnknownWorkload),
    (0x746c_0003, Reason::NoCertificate),
    (0x746c_0004, Reason::LimitReached),
];

/// What a stream is to be reset with, should it be dropped.
#[derive(Debug, Clone, Default)]
pub struct ResetWith(Arc<AtomicU32>);

impl ResetWith {
    /// Has the peer told `reason`, if there is a code for it.
    pub fn reason(&self, reason: Reason) {
        if let Some((code, _)) = CODES.iter().find(|(_, known)| *known == reason) {
            self.0.store(*code, Ordering::Relaxed);
        }
    }

    /// INTERNAL_ERROR unless there is a reason: ztunnel takes NO_ERROR and CANCEL for an end of file.
    pub(super) fn code(&self) -> ResetCode {
        match self.0.load(Ordering::Relaxed) {
            0 => ResetCode::INTERNAL_ERROR,
            code => code.into(),
        }
    }
}

/// The reason that the peer gave with its reset, if it gave one.
pub(super) fn reason_of(code: ResetCode) -> Option<Reason> {
    let code = u32::from(code);
    CODES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_travel_and_everything_else_is_an_internal_error() {
        for (_, reason) in CODES {
            let with = ResetWith::default();
            with.reason(reason);
            assert_eq!(reason_of(with.code()), Some(reason));
        }
        let with = ResetWith::default();
        with.reason(Reason::ResetByDestination);
        assert_eq!(with.code(), ResetCode::INTERNAL_ERROR);
        for standard in 0..=0xd {
            assert_eq!(reason_of(ResetCode::from(standard)), None);
        }
    }
}
