//! Where lines end.

use std::iter;

/// The length of the end of a line, 0 where there is none. As YAML has it: CR, LF and both, and three characters of Unicode
/// (NEL, LS, PS).
fn break_length(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\n', ..] | [0xc2, 0x85, ..] => 2,
        [b'\n' | b'\r', ..] => 1,
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => 3,
        _ => 0,
    }
}

pub(super) fn begins_with_break(bytes: &[u8]) -> bool {
    break_length(bytes) > 0
}

/// The lines of a YAML text, each with its end.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        let length = |at: &usize| break_length(rest.as_bytes().get(*at..).unwrap_or_default());
        let end = match (0..rest.len()).find(|at| length(at) > 0) {
            Some(at) => at + length(&at),
            None => rest.len(),
        };
        let (line, after) = rest.split_at_checked(end)?;
        rest = after;
        Some(line).filter(|line| !line.is_empty())
    })
}
