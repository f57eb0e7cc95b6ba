//! What the YAML scanner would do with a text, before it does it.
//!
//! The scanner reads a whole document before anybody sees the first value of it, so that bounds on values come too late for
//! it, and some of what it does takes time by the square of the text's length or worse: `a: ` and 80 KB of `[` took 16 s. This
//! follows it token by token, keeps nothing, and stops where a document gets too much. Where brackets are text (in quotes,
//! comments, blocks and plain words) they are none here either.

use std::str::Chars;

use super::MAX_FILE_BYTES;
use super::bounds::MAX_DEPTH;

/// `%TAG` and `%YAML` lines, each of which the scanner compares with all before; a document has one or two.
const MAX_DIRECTIVES: usize = 16;
/// Bytes that the scanner may clear between the words of texts: about a second.
const MAX_CLEARED: usize = MAX_FILE_BYTES << 10;
/// Beyond it a number is read digit by digit wherever an alias stands for it.
const MAX_NUMBER: usize = 1024;

/// Why a document is not given to the scanner, and on which of its lines that is, from 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch {
    pub(super) line: usize,
    pub(super) problem: String,
}

/// Follows the scanner through a document. `cleared` counts over all documents of a file.
pub(super) fn check(text: &str, cleared: &mut usize) -> Result<(), TooMuch> {
    Scan::new(text, cleared).document()
}

struct Scan<'a> {
    rest: Chars<'a>,
    length: usize,
    /// Place of what is next, in characters.
    index: usize,
    line: usize,
    column: usize,
    /// Brackets that are open.
    flow: usize,
    /// Column of the block's entries that is open, and of those around it; -1 outside of all.
    indent: isize,
    indents: Vec<isize>,
    /// Where outside of brackets something began that is a key if `:` follows.
    key: Option<Place>,
    key_allowed: bool,
    /// The sum of the open brackets at each token: what the scanner goes through.
    nested: usize,
    /// Where there were more than values may nest.
    too_deep: Option<usize>,
    cleared: &'a mut usize,
    directives: usize,
    has_alias: bool,
    /// Line of a number that is too long to be read more than once.
    long_number: Option<usize>,
}

#[derive(Clone, Copy)]
struct Place {
    index: usize,
    line: usize,
    column: usize,
}

/// Words of one text: for each the scanner clears as much as the longest run of blanks before took.
#[derive(Default)]
struct Words {
    count: usize,
    longest: usize,
}

impl Words {
    fn after(&mut self, blanks: usize) {
        self.count += 1;
        self.longest = self.longest.max(blanks);
    }
}

impl<'a> Scan<'a> {
    fn new(text: &'a str, cleared: &'a mut usize) -> Self {
        Self {
            rest: text.chars(),
            length: text.len(),
            index: 0,
            line: 0,
            column: 0,
            flow: 0,
            indent: -1,
            indents: Vec::new(),
            key: None,
            key_allowed: true,
            nested: 0,
            too_deep: None,
            cleared,
            directives: 0,
            has_alias: false,
            long_number: None,
        }
    }

    fn document(mut self) -> Result<(), TooMuch> {
        while self.find_token() {
            self.token()?;
            self.nested += self.flow;
            if self.flow > MAX_DEPTH {
                self.too_deep = self.too_deep.or(Some(self.line));
            }
            // A token has a byte at least: with less nesting than is allowed it would not come to this.
            if self.nested > MAX_DEPTH * self.length {
                let line = self.too_deep.unwrap_or(self.line);
                let problem = super::bounds::too_deep();
                return Err(TooMuch { line, problem });
            }
        }
        match self.long_number.filter(|_| self.has_alias) {
            Some(line) => Err(TooMuch {
                line,
                problem:
                    "a number this long cannot be in a document with aliases (`&`, `*`); put it in quotes"
                        .into(),
            }),
            None => Ok(()),
        }
    }

    fn find_token(&mut self) -> bool {
        loop {
            while matches!(self.byte(0), b' ' | b'\t' | 0xef) && self.is_blank_or_bom() {
                self.skip();
            }
            if self.byte(0) == b'#' {
                self.skip_line();
            }
            if !self.is_break(0) {
                return self.byte(0) != 0;
            }
            self.skip();
            self.key_allowed |= self.flow == 0;
        }
    }

    fn token(&mut self) -> Result<(), TooMuch> {
        self.unroll(self.column());
        if self
            .key
            .is_some_and(|key| key.line < self.line || key.index + 1024 < self.index)
        {
            self.key = None;
        }
        if self.column == 0 && self.byte(0) == b'%' {
            return self.directive();
        }
        if self.is_marker() {
            self.unroll(-1);
            (self.key, self.key_allowed) = (None, false);
            (0..3).for_each(|_| self.skip());
            return Ok(());
        }
        let (blank_next, in_flow) = (self.is_blank_or_end(1), self.flow > 0);
        match self.byte(0) {
            b'[' | b'{' => {
                self.save_key();
                self.flow += 1;
                self.key_allowed = true;
                self.skip();
            }
            b']' | b'}' => {
                self.forget_key();
                self.flow = self.flow.saturating_sub(1);
                self.key_allowed = false;
                self.skip();
            }
            b',' => {
                self.forget_key();
                self.key_allowed = true;
                self.skip();
            }
            b'-' if blank_next => {
                self.roll(self.column());
                self.forget_key();
                self.key_allowed = true;
                self.skip();
            }
            b'?' if in_flow || blank_next => {
                self.roll(self.column());
                self.forget_key();
                self.key_allowed = !in_flow;
                self.skip();
            }
            b':' if in_flow || blank_next => {
                match self.key.take_if(|_| !in_flow) {
                    Some(key) => {
                        self.roll(isize::try_from(key.column).unwrap_or(isize::MAX));
                        self.key_allowed = false;
                    }
                    None => {
                        self.roll(self.column());
                        self.key_allowed = !in_flow;
                    }
                }
                self.skip();
            }
            b'&' | b'*' => {
                self.has_alias |= self.byte(0) == b'*';
                self.begin_scalar();
                self.skip();
                while matches!(self.byte(0), b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'-') {
                    self.skip();
                }
            }
            b'!' => {
                self.begin_scalar();
                let verbatim = self.byte(1) == b'<';
                while !self.is_blank_or_end(0)
                    && (verbatim || !matches!(self.byte(0), b',' | b'[' | b']' | b'{' | b'}'))
                {
                    self.skip();
                }
            }
            b'|' | b'>' if !in_flow => return self.block(),
            quote @ (b'\'' | b'"') => {
                self.begin_scalar();
                return self.quoted(quote);
            }
            _ => {
                self.begin_scalar();
                return self.plain();
            }
        }
        Ok(())
    }

    fn directive(&mut self) -> Result<(), TooMuch> {
        self.unroll(-1);
        self.directives += 1;
        if self.directives > MAX_DIRECTIVES {
            return Err(TooMuch {
                line: self.line,
                problem: format!("has more than {MAX_DIRECTIVES} lines that begin with `%`; leave them out"),
            });
        }
        self.skip_line();
        Ok(())
    }

    /// A word, or several of them over several lines, without quotes.
    fn plain(&mut self) -> Result<(), TooMuch> {
        let (in_flow, line, begin) = (self.flow > 0, self.line, self.index);
        let number = matches!(self.byte(0), b'0'..=b'9' | b'+' | b'-' | b'.');
        let (mut words, mut only_digits, mut lines) = (Words::default(), number, false);
        loop {
            if self.is_marker() || self.byte(0) == b'#' {
                break;
            }
            let at = self.index;
            while !self.is_blank_or_end(0) {
                let byte = self.byte(0);
                let ends = match byte {
                    b':' => {
                        self.is_blank_or_end(1)
                            || in_flow && matches!(self.byte(1), b',' | b'?' | b'[' | b']' | b'{' | b'}')
                    }
                    b',' | b'[' | b']' | b'{' | b'}' => in_flow,
                    _ => false,
                };
                if ends {
                    break;
                }
                only_digits &= byte.is_ascii_hexdigit() || b"+-.xXoO_".contains(&byte);
                self.skip();
            }
            if only_digits && self.index - begin > MAX_NUMBER {
                self.long_number = Some(line);
            }
            if !self.is_blank_or_end(0) || self.byte(0) == 0 || at == self.index {
                break;
            }
            let (blanks, broken) = self.blanks();
            words.after(blanks);
            lines = broken;
            if !in_flow && self.column() <= self.indent {
                break;
            }
        }
        self.key_allowed |= lines;
        self.clear(words)
    }

    fn quoted(&mut self, quote: u8) -> Result<(), TooMuch> {
        let mut words = Words::default();
        self.skip();
        loop {
            // The scanner refuses a marker, and the end.
            if self.is_marker() || self.byte(0) == 0 {
                break;
            }
            while !self.is_blank_or_end(0) && self.byte(0) != quote || self.is_escape(quote) {
                if self.is_escape(quote) {
                    self.skip();
                }
                self.skip();
            }
            if self.byte(0) == quote {
                self.skip();
                break;
            }
            let (blanks, _) = self.blanks();
            words.after(blanks);
        }
        self.clear(words)
    }

    /// Whether a quote does not end a text, or a backslash takes what follows into it.
    fn is_escape(&self, quote: u8) -> bool {
        let first = if quote == b'"' { b'\\' } else { quote };
        self.byte(0) == first && (quote == b'"' && self.byte(1) != 0 || self.byte(1) == quote)
    }

    /// A text that is indented below `|` or `>`.
    fn block(&mut self) -> Result<(), TooMuch> {
        self.forget_key();
        self.key_allowed = true;
        self.skip();
        let mut increment = 0;
        while matches!(self.byte(0), b'+' | b'-' | b'0'..=b'9') {
            if self.byte(0).is_ascii_digit() {
                increment = isize::from(self.byte(0) - b'0');
            }
            self.skip();
        }
        while matches!(self.byte(0), b' ' | b'\t') {
            self.skip();
        }
        if self.byte(0) != b'#' && !self.is_break(0) {
            return Ok(());
        }
        self.skip_line();
        self.skip();
        let given = (increment > 0).then(|| self.indent.max(0) + increment);
        let (blanks, deepest) = self.block_breaks(given);
        let indent = given.unwrap_or_else(|| deepest.max(self.indent + 1).max(1));
        let mut words = Words::default();
        words.after(blanks);
        while self.column() == indent && self.byte(0) != 0 {
            self.skip_line();
            self.skip();
            words.after(self.block_breaks(Some(indent)).0);
        }
        self.clear(words)
    }

    /// Passes the indentation of a block's line and the empty lines before it; the deepest column of these.
    fn block_breaks(&mut self, indent: Option<isize>) -> (usize, isize) {
        let (mut breaks, mut deepest) = (0, 0);
        loop {
            while self.byte(0) == b' ' && indent.is_none_or(|indent| self.column() < indent) {
                self.skip();
            }
            deepest = deepest.max(self.column());
            if !self.is_break(0) {
                return (breaks, deepest);
            }
            self.skip();
            breaks += 1;
        }
    }

    fn blanks(&mut self) -> (usize, bool) {
        let begin = (self.index, self.line);
        while self.byte(0) != 0 && self.is_blank_or_end(0) {
            self.skip();
        }
        (self.index - begin.0, self.line > begin.1)
    }

    fn clear(&mut self, words: Words) -> Result<(), TooMuch> {
        *self.cleared = self
            .cleared
            .saturating_add(words.count.saturating_mul(words.longest));
        if *self.cleared <= MAX_CLEARED {
            return Ok(());
        }
        let problem = "a text that ends here has runs of blanks or empty lines too long for its many words; shorten them";
        Err(TooMuch {
            line: self.line,
            problem: problem.into(),
        })
    }

    fn begin_scalar(&mut self) {
        self.save_key();
        self.key_allowed = false;
    }

    fn save_key(&mut self) {
        if self.flow == 0 && self.key_allowed {
            self.key = Some(Place {
                index: self.index,
                line: self.line,
                column: self.column,
            });
        }
    }

    /// What is within brackets says nothing of what is around them.
    fn forget_key(&mut self) {
        if self.flow == 0 {
            self.key = None;
        }
    }

    fn roll(&mut self, column: isize) {
        if self.flow == 0 && self.indent < column {
            self.indents.push(self.indent);
            self.indent = column;
        }
    }

    fn unroll(&mut self, column: isize) {
        while self.flow == 0 && self.indent > column {
            self.indent = self.indents.pop().unwrap_or(-1);
        }
    }

    fn column(&self) -> isize {
        isize::try_from(self.column).unwrap_or(isize::MAX)
    }

    /// A byte ahead; 0, which no YAML holds, at the end.
    fn byte(&self, ahead: usize) -> u8 {
        let bytes = self.rest.as_str().as_bytes();
        bytes.get(ahead).copied().unwrap_or_default()
    }

    fn is_break(&self, ahead: usize) -> bool {
        let bytes = self.rest.as_str().as_bytes();
        bytes.get(ahead..).is_some_and(super::lines::begins_with_break)
    }

    fn is_blank_or_end(&self, ahead: usize) -> bool {
        matches!(self.byte(ahead), 0 | b' ' | b'\t') || self.is_break(ahead)
    }

    fn is_blank_or_bom(&self) -> bool {
        self.byte(0) != 0xef || self.column == 0 && self.rest.as_str().starts_with('\u{feff}')
    }

    fn is_marker(&self) -> bool {
        let text = self.rest.as_str();
        self.column == 0 && (text.starts_with("---") || text.starts_with("...")) && self.is_blank_or_end(3)
    }

    /// Up to the end of the line.
    fn skip_line(&mut self) {
        while self.byte(0) != 0 && !self.is_break(0) {
            self.skip();
        }
    }

    fn skip(&mut self) {
        let is_break = self.is_break(0);
        if self.rest.next() == Some('\r') && self.byte(0) == b'\n' {
            self.rest.next();
        }
        self.index += 1;
        if is_break {
            (self.line, self.column) = (self.line + 1, 0);
        } else {
            self.column += 1;
        }
    }
}

#[cfg(test)]
mod tests;
