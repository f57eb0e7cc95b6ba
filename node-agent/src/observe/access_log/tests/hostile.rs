//! One connection is one valid line, whatever a peer or a manifest says.

use std::sync::Arc;

use proptest::prelude::*;
use tramline_core::service::Service;
use tramline_core::workload::Workload;

use super::*;
use crate::observe::ConnectionInfo;

/// The fields of a text line: bare words, or strings that any JSON reader reads.
pub(super) fn read_text(line: &str) -> Vec<(String, String)> {
    let mut rest = line.strip_suffix('\n').unwrap();
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').unwrap();
        let (value, behind) = if value.starts_with('"') {
            let mut strings = serde_json::Deserializer::from_str(value).into_iter::<String>();
            let read = strings.next().unwrap().unwrap();
            (read, &value[strings.byte_offset()..])
        } else {
            let end = value.find(' ').unwrap_or(value.len());
            (value[..end].to_owned(), &value[end..])
        };
        fields.push((name.to_owned(), value));
        rest = behind.strip_prefix(' ').unwrap_or(behind);
    }
    fields
}

fn renamed(workload: &Workload, name: &str) -> Arc<Workload> {
    Arc::new(Workload {
        name: name.into(),
        ..workload.clone()
    })
}

/// An entry with `text` wherever a peer, or who writes manifests, chooses it.
fn entry_with(text: &[String; 5]) -> Entry {
    let base = connection(Reporter::Destination);
    let service = base.service.as_deref().unwrap();
    let info = ConnectionInfo {
        source: base.source.as_deref().map(|source| renamed(source, &text[0])),
        destination: base.destination.as_deref().map(|pod| renamed(pod, &text[1])),
        service: Some(Arc::new(Service {
            hostname: text[2].as_str().into(),
            ..service.clone()
        })),
        ..base
    };
    let outcome = Outcome::new(Reason::TlsFailure)
        .with_policy(text[3].as_str())
        .with_detail(text[4].as_str());
    Entry {
        info,
        ..entry(Reporter::Destination, outcome)
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_field_are_one_valid_line(bytes in any::<[Vec<u8>; 5]>()) {
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        check(&text)?;
    }

    #[test]
    fn any_text_in_any_field_is_one_valid_line(
        text in proptest::array::uniform5("(?s)(.|[\\x00-\\x1f\\x7f\\\\\"' ={},\u{85}\u{2028}\u{202e}\u{feff}]){0,60}"),
    ) {
        check(&text)?;
    }
}

fn check(text: &[String; 5]) -> Result<(), TestCaseError> {
    let names = ["src.workload", "dst.workload", "dst.service", "policy", "detail"];
    let entry = entry_with(text);
    let (json, plain) = (line_of(&entry, Format::Json), line_of(&entry, Format::Text));
    for line in [&json, &plain] {
        let one_line = line.strip_suffix('\n').unwrap();
        let bad = one_line
            .chars()
            .find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}'));
        prop_assert_eq!(bad, None, "{:?}", line);
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
    let fields = read_text(&plain);
    prop_assert_eq!(fields.len(), object.len());
    for (name, text) in names.iter().zip(text) {
        prop_assert_eq!(object[*name].as_str().unwrap(), text);
        let read: Vec<_> = fields.iter().filter(|(found, _)| found == name).collect();
        prop_assert_eq!(read.len(), 1);
        prop_assert_eq!(&read[0].1, text);
    }
    prop_assert_eq!(&object["verdict"], "fail");
    Ok(())
}

#[test]
fn hostile_text_stays_one_line_in_both_formats() {
    let hostile = "x\r\n{\"verdict\":\"allow\"}\u{1b}[2J\0\u{2028}\" verdict=allow";
    let entry = entry(
        Reporter::Source,
        Outcome::new(Reason::TlsFailure).with_detail(hostile),
    );
    let json = line_of(&entry, Format::Json);
    let text = line_of(&entry, Format::Text);
    for line in [&json, &text] {
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n'));
        assert!(
            !line.trim_end_matches('\n').chars().any(char::is_control),
            "{line:?}"
        );
    }
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["detail"], hostile);
    assert_eq!(value["verdict"], "fail");
    assert!(
        text.contains(r#"\" verdict=allow""#),
        "a quote in a value does not end it: {text}"
    );
}

#[test]
fn invalid_utf8_from_a_peer_is_one_valid_line() {
    let detail = String::from_utf8_lossy(&[b'a', 0xff, 0xfe, b'\n', 0xc0, 0x80]).into_owned();
    let line = line_of(
        &entry(
            Reporter::Source,
            Outcome::new(Reason::Internal).with_detail(detail),
        ),
        Format::Json,
    );
    assert_eq!(line.lines().count(), 1);
    serde_json::from_str::<serde_json::Value>(&line).unwrap();
}
