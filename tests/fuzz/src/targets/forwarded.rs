//! `forwarded`, which a peer sends: client and Service are what the last element says or nothing, and what is sent is
//! read as it was meant.

use http::header::{FORWARDED, HeaderMap, HeaderValue};
use tramline_node_agent::tunnel::{Forwarded, forwarded_for, forwarded_host};

use super::is_reason;
use crate::Target;
use crate::input::Input;

pub(super) const TARGET: Target = Target {
    name: "forwarded",
    check,
    words: &[
        "for=",
        "For=\"",
        "host=",
        ";host=",
        ", for=",
        "by=",
        "proto=",
        "[fd00::1]:4711",
        "10.0.0.1:99",
        "unknown",
        "_hidden",
        "web.shop.svc.cluster.local",
    ],
    mutations: 30_000,
    memory: (1 << 20, 64),
};

fn check(input: &[u8]) {
    read(input);
    print(input);
}

/// One header per line.
fn read(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(FORWARDED, value);
        }
    }
    let (client, host) = (forwarded_for(&headers), forwarded_host(&headers));
    let last = headers.get_all(FORWARDED).iter().next_back();
    let last = last.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let element = last.rsplit(',').next().unwrap_or_default();
    let says = |name: &str, value: &dyn Fn(&str) -> bool| {
        element.split(';').any(|pair| {
            pair.split_once('=').is_some_and(|(key, text)| {
                key.trim().eq_ignore_ascii_case(name) && value(text.trim().trim_matches('"'))
            })
        })
    };
    if let Some(client) = client {
        assert!(
            says("for", &|text| text.parse() == Ok(client)),
            "{last:?}: {client}"
        );
    }
    if let Some(host) = host {
        assert!(says("host", &|text| text == host), "{last:?}: {host}");
        // Nothing that could end a log field or a header.
        assert!(
            host.chars()
                .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
            "{host:?}"
        );
    }
}

/// Any client, and the text as the name of a host.
fn print(input: &[u8]) {
    let Some((address, host)) = input.split_at_checked(18) else {
        return;
    };
    let mut bytes = Input::new(address);
    let port = u16::from_be_bytes([bytes.byte(), bytes.byte()]);
    let ip: [u8; 16] = std::array::from_fn(|_| bytes.byte());
    let client = match ip {
        [a, b, c, d, 0, ..] => ([a, b, c, d], port).into(),
        ip => (ip, port).into(),
    };
    let Ok(host) = std::str::from_utf8(host) else {
        return;
    };
    let plain = !host.is_empty()
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    for sent in [None, Some(host)] {
        let forwarded = Forwarded {
            client,
            host: sent.map(Into::into),
        };
        match forwarded.header() {
            Ok(header) => {
                assert!(plain || sent.is_none(), "sent: {host:?}");
                let headers: HeaderMap = [(FORWARDED, header)].into_iter().collect();
                assert_eq!(forwarded_for(&headers), Some(client));
                assert_eq!(forwarded_host(&headers), sent);
            }
            Err(problem) => {
                assert!(!plain && sent.is_some(), "not sent: {host:?}");
                assert!(is_reason(&problem), "{problem:?}");
            }
        }
    }
}
