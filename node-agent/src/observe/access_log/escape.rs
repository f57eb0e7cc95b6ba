//! Values in a log line: whatever a peer sent, one record stays one line and cannot steer a terminal.

use std::fmt::Write as _;

/// Longest value written, in bytes; the rest is cut and marked with `...`.
const MAX_VALUE: usize = 1024;

/// Whether `c` must not reach a log reader as it is: C0 and C1 controls (line ends, NUL, ANSI escapes), Unicode line
/// separators, and the direction marks that make text read other than it is (CVE-2021-42574).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}'
        )
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Cuts `value` to the longest allowed prefix; the flag says that something was cut.
fn bounded(value: &str) -> (&str, bool) {
    if value.len() <= MAX_VALUE {
        (value, false)
    } else {
        (&value[..value.floor_char_boundary(MAX_VALUE)], true)
    }
}

/// Appends `value` as a JSON string (RFC 8259 section 7), quotes included.
pub(super) fn json(out: &mut String, value: &str) {
    quoted(out, value);
}

/// Appends `value` as ztunnel's text log does: bare when it is plainly one word, a quoted string otherwise.
pub(super) fn text(out: &mut String, value: &str) {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b"._-:/[]+".contains(&b);
    if !value.is_empty() && value.len() <= MAX_VALUE && value.bytes().all(bare) {
        out.push_str(value);
    } else {
        quoted(out, value);
    }
}

/// JSON's own escapes serve both formats, so that a text value can be decoded by any JSON reader.
fn quoted(out: &mut String, value: &str) {
    let (value, cut) = bounded(value);
    out.push('"');
    // Almost every value is plain to its end, and is copied as it is.
    let plain = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    let (head, rest) = value.split_at(value.bytes().take_while(plain).count());
    out.push_str(head);
    for c in rest.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Every unsafe character is in the basic plane, so four digits are enough.
            c if is_unsafe(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    if cut {
        out.push_str("...");
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json_of(value: &str) -> String {
        let mut out = String::new();
        json(&mut out, value);
        out
    }

    fn text_of(value: &str) -> String {
        let mut out = String::new();
        text(&mut out, value);
        out
    }

    #[test]
    fn line_ends_nul_and_terminal_codes_are_escaped() {
        assert_eq!(
            json_of("a\r\nb\0\x1b[31mred\x7f"),
            r#""a\r\nb\u0000\u001b[31mred\u007f""#
        );
        assert_eq!(
            json_of("x\u{2028}y\u{202e}z\u{9b}2J"),
            r#""x\u2028y\u202ez\u009b2J""#
        );
        assert_eq!(text_of("evil\nverdict=allow"), r#""evil\nverdict=allow""#);
    }

    #[test]
    fn plain_words_stay_bare_in_text() {
        assert_eq!(text_of("10.0.0.1:8080"), "10.0.0.1:8080");
        assert_eq!(text_of("[fd00::1]:80"), "[fd00::1]:80");
        assert_eq!(text_of(""), "\"\"");
        assert_eq!(text_of("two words"), "\"two words\"");
        assert_eq!(text_of("a=b"), "\"a=b\"");
    }

    #[test]
    fn long_values_are_cut_at_a_character_boundary() {
        let long = "ä".repeat(2000);
        let cut: String = serde_json::from_str(&json_of(&long)).unwrap();
        assert!(
            cut.ends_with("...") && cut.len() <= MAX_VALUE + 3,
            "{}",
            cut.len()
        );
        assert!(text_of(&"x".repeat(5000)).len() < MAX_VALUE + 8);
    }

    proptest! {
        #[test]
        fn any_value_decodes_to_itself_and_is_one_printable_line(value in "(?s).{0,200}") {
            let written = json_of(&value);
            prop_assert!(!written.chars().any(is_unsafe));
            prop_assert_eq!(serde_json::from_str::<String>(&written).unwrap(), value.clone());
            let plain = text_of(&value);
            prop_assert!(!plain.chars().any(is_unsafe));
            let decoded = serde_json::from_str::<String>(&plain).unwrap_or(plain);
            prop_assert_eq!(decoded, value);
        }
    }
}
