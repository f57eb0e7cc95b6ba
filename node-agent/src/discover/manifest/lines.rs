//! Where lines end.

/// Whether this is where a line ends, as YAML has it: CR and LF, and three characters of Unicode (NEL, LS, PS).
pub(super) fn begins_with_break(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [b'\n' | b'\r', ..] | [0xc2, 0x85, ..] | [0xe2, 0x80, 0xa8 | 0xa9, ..]
    )
}
