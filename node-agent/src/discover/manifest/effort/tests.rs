use std::fmt::Write as _;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::*;
use crate::discover::manifest::tests::{bad, good};

/// Far below what the scanner took, and far above what a busy machine needs.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn refused_soon(text: &str, parts: &[&str]) {
    let began = Instant::now();
    bad(text, parts);
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[test]
fn open_brackets_are_refused_before_they_are_scanned() {
    for text in ["[", "{", "{a: ", "[? ", "{? [", "[[,"] {
        let many = text.repeat(1 << 20);
        refused_soon(&many, &["f.yaml:1: values nest deeper than 48"]);
        refused_soon(
            &format!("kind: Pod\na: {many}"),
            &["f.yaml:2: values nest deeper than 48"],
        );
        refused_soon(
            &format!("# a\n---\n# ]]}}}}\n---\n- {many}"),
            &["f.yaml:5: values nest deeper than 48"],
        );
        // Behind anything that could be taken for the beginning of a text.
        for before in [
            "a: b 'c\nd: ",
            "a: \"\\\\\"\nd: ",
            "a: '\\'\nd: ",
            "a: |\n  '\nd: ",
            "- |\n '\n- ",
            "a: 'b''c'\nd: ",
            "? >1-\n  '\n: ",
            "# '\nd: ",
            "a: it's\nd: ",
            "{\"a\":\"b\\\"\",d: ",
            "&a !b 'c' : ",
            "a:\n- |\n  \"\n- ",
            "a: |2\n   '\n 'x': ",
            "a: 'b\n\n  c'\nd: ",
        ] {
            refused_soon(&format!("{before}{many}"), &["values nest deeper than 48"]);
        }
    }
    // Closed again in time, which is as slow.
    let text = format!("a: {}{}", "[".repeat(1 << 19), "]".repeat(1 << 19));
    refused_soon(&text, &["f.yaml:1: values nest deeper than 48"]);
}

#[test]
fn brackets_that_are_text_are_none() {
    let many = "[{".repeat(1 << 16);
    for value in [
        format!("'{many}'"),
        format!("\"{many}\""),
        format!("\"x\\\"{many}\""),
        format!("'x''{many}'"),
        format!("x{many}"),
        format!("x\n     {many}"),
        format!("|\n     {many}\n     {many}"),
        format!("|+\n\n     x\n      {many}\n"),
        format!(">-  # {many}\n     x\n\n     {many}"),
        format!("|1-\n     {many}\n"),
        format!("x # {many}"),
        format!("[\"{many}\", '{many}', x # {many}\n     ]"),
    ] {
        let text = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\nother:\n  a: {value}\n# {many}\n"
        );
        good(&text);
        good(&text.replace('\n', "\r\n"));
    }
    let long_key =
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: b}}\n? '{many}'\n: |\n {many}\n");
    good(&long_key);
}

#[test]
fn other_texts_that_take_the_scanner_too_long_are_refused() {
    let (blanks, words) = (" ".repeat(2 << 20), "x ".repeat(2 << 20));
    for text in [
        format!("a: x{blanks}{words}"),
        format!("a: \"x{blanks}{words}\""),
        format!("a: 'x{blanks}{words}'"),
        format!("a: |\n x{}{}", "\n".repeat(2 << 20), " x\n".repeat(1 << 20)),
        format!("a: >\n x\n{}{}", "\n".repeat(2 << 20), " x\n".repeat(1 << 20)),
    ] {
        refused_soon(&text, &["f.yaml:", "runs of blanks or empty lines too long"]);
    }
    // A bit in each of many documents.
    let some = format!("a: x{}{}\n", " ".repeat(64 << 10), "x ".repeat(64 << 10));
    let mut cleared = 0;
    assert_eq!(check(&some, &mut cleared), Ok(()));
    let refused = check(&some, &mut cleared).and_then(|()| check(&some, &mut cleared));
    assert!(
        refused.is_err_and(|refused| refused.line == 1 && refused.problem.contains("runs of blanks")),
        "{cleared}"
    );

    let mut tags = String::new();
    for index in 0..200_000 {
        writeln!(tags, "%TAG !a{index}! tag:x").unwrap();
    }
    refused_soon(&tags, &["f.yaml:17: has more than 16 lines that begin with `%`"]);

    // Deep, but not slow.
    refused_soon(&"- ".repeat(1 << 17), &["values nest deeper than 48"]);
    refused_soon(&"? ".repeat(1 << 17), &["f.yaml:1: "]);
}

#[test]
fn an_alias_of_a_long_text_counts_as_often_as_it_is_read() {
    let long = "x".repeat(1 << 20);
    let mut text =
        format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: b\n  labels:\n    a: &a {long}\n");
    for index in 0..10 {
        writeln!(text, "    b{index}: *a").unwrap();
    }
    good(&text);
    for index in 10..100 {
        writeln!(text, "    b{index}: *a").unwrap();
    }
    bad(
        &text,
        &["its aliases (`&`, `*`) unfold to far more than is written"],
    );
    let number = format!("a: &a 0.{}\nb: [*a]\n", "1".repeat(1 << 20));
    bad(
        &number,
        &["f.yaml:1: a number this long cannot be in a document with aliases"],
    );
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: b}}\na: 0.{}\n",
        "1".repeat(1 << 20)
    );
    good(&text);
}

/// Reads a value and says how deep it nests.
struct Depth;

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = usize;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_i64<E>(self, _: i64) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_u64<E>(self, _: u64) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_f64<E>(self, _: f64) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_str<E>(self, _: &str) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_unit<E>(self) -> Result<usize, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<usize, A::Error> {
        let mut deepest = 0;
        while let Some(depth) = seq.next_element_seed(Depth)? {
            deepest = deepest.max(depth);
        }
        Ok(deepest + 1)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut deepest = 0;
        while let Some(depth) = map.next_key_seed(Depth)? {
            deepest = deepest.max(depth).max(map.next_value_seed(Depth)?);
        }
        Ok(deepest + 1)
    }
}

/// The most brackets that are open at once, and those that stay open.
fn brackets(text: &str) -> (usize, usize) {
    let mut cleared = 0;
    let mut scan = Scan::new(text, &mut cleared);
    let mut most = 0;
    while scan.find_token() {
        scan.token().unwrap();
        most = most.max(scan.flow);
    }
    (most, scan.flow)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// What the parser takes has no more brackets than it has values within each other, and all are closed.
    #[test]
    fn brackets_are_counted_as_the_scanner_does(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "[", "]", "{", "}", "[", "]", "{", "}", ",", ", ", ":", ": ", "- ", "? ", "'", "\"", "''", "\\", "\\\"", "#", " #", "a", "b c", "|", ">", "|2", "\n",
                "\n ", "\n  ", "\n    ", "\r", "\u{2028}", "\t", "&a ", "*a", "!b ", "a: ", "a: |\n  ", "a: >-\n   ", "- |\n ", "{a: b}", "[a, b]", "é", "...", "%", "1",
            ]),
            0..24,
        )
    ) {
        let text = parts.concat();
        let yaml = serde_norway::Deserializer::from_str(&text);
        if let Ok(depth) = Depth.deserialize(yaml) {
            let (most, open) = brackets(&text);
            prop_assert!(most <= depth, "{most} brackets, {depth} deep");
            prop_assert_eq!(open, 0);
        }
    }

    /// What is read as brackets and nothing else nests as deep as they do.
    #[test]
    fn brackets_are_seen_behind_texts(
        before in prop::sample::select(vec!["", "'", "''", "\"", "\\\"", "|\n ", "x", "x '", "- ", ">\n  x\n", "# '\n", "&a ", "\\", "a\n\n b"]),
        quote in prop::sample::select(vec!["", "'", "\""]),
        after in prop::sample::select(vec!["\nb: ", "\n? ", "\nb:\n - ", "\nb:\n  "]),
    ) {
        let text = format!("a: {quote}{before}{quote}{after}[[[[[[x]]]]]]\n");
        let yaml = serde_norway::Deserializer::from_str(&text);
        if let Ok(depth) = Depth.deserialize(yaml)
            && depth >= 6
        {
            prop_assert_eq!(brackets(&text).0, 6);
        }
    }
}
