//! The trace id that both ends of a tunnelled connection log (W3C Trace Context, level 1).

use std::fmt;

/// Names one connection in the logs of the agents at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId {
    high: u64,
    low: u64,
}

impl TraceId {
    /// An id of 128 random bits; all zero would be invalid (section 3.2.2.3).
    pub fn new(high: u64, low: u64) -> Self {
        Self { high, low: low | 1 }
    }

    /// The id of a `traceparent` header; `None` for one that the standard says to ignore.
    pub fn of_traceparent(header: &str) -> Option<Self> {
        let mut fields = header.split('-');
        let (version, trace) = (fields.next()?, fields.next()?);
        let (parent, flags) = (fields.next()?, fields.next()?);
        let is_hex = |field: &str, length| {
            field.len() == length
                && field
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        // Version 00 has these four fields; later versions may have more behind them.
        let more = fields.next().is_some();
        if !is_hex(version, 2) || version == "ff" || (version == "00" && more) {
            return None;
        }
        if !is_hex(trace, 32) || !is_hex(parent, 16) || !is_hex(flags, 2) {
            return None;
        }
        let number = |field: &str| u64::from_str_radix(field, 16).ok();
        let (high, low) = (number(&trace[..16])?, number(&trace[16..])?);
        (number(parent)? != 0 && (high, low) != (0, 0)).then_some(Self { high, low })
    }

    /// A `traceparent` header of version 00, not sampled: nobody collects spans of connections.
    pub fn traceparent(self, parent: u64) -> String {
        format!("00-{self}-{:016x}-00", parent | 1)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::TraceId;
    use proptest::prelude::*;

    #[test]
    fn the_standards_example_is_read_and_invalid_ones_are_ignored() {
        let example = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let id = TraceId::of_traceparent(example).unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes";
        assert_eq!(TraceId::of_traceparent(later), Some(id));
        for invalid in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473\u{e9}-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceId::of_traceparent(invalid), None, "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read(high: u64, low: u64, parent: u64) {
            let id = TraceId::new(high, low);
            prop_assert_eq!(TraceId::of_traceparent(&id.traceparent(parent)), Some(id));
        }

        #[test]
        fn no_header_is_too_strange(header in "\\PC{0,80}") {
            let _ = TraceId::of_traceparent(&header);
        }
    }
}
