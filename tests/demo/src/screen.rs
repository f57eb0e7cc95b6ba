//! What a person sees, in 80 columns.

use std::io::{Write, stderr, stdout};

const WIDTH: usize = 80;

/// A line as it is.
pub(crate) fn line(text: &str) {
    // A reader that went away (`| head`) is no reason to leave namespaces behind.
    let _ = writeln!(stdout().lock(), "{text}");
}

/// The beginning.
pub(crate) fn title(text: &str) {
    line(text);
    line(&"=".repeat(text.chars().count().min(WIDTH)));
}

/// Something is being done.
pub(crate) fn step(text: &str) {
    line(&format!("  .. {text}"));
}

/// Text folded at blanks, each line indented; a word longer than a line stays whole.
pub(crate) fn folded(text: &str, indent: usize) {
    for part in fold(text, WIDTH - indent) {
        line(&format!("{}{part}", " ".repeat(indent)));
    }
}

/// To standard error.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(stderr().lock(), "tramline-demo: {text}");
}

fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut current = String::new();
        for word in paragraph.split_whitespace() {
            if !current.is_empty() && current.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_folded_at_blanks_and_loses_no_word() {
        let lines = fold("one two three\nfour", 7);
        assert_eq!(lines, ["one two", "three", "four"]);
        assert_eq!(
            fold("a-word-longer-than-the-line b", 5),
            ["a-word-longer-than-the-line", "b"]
        );
    }
}
