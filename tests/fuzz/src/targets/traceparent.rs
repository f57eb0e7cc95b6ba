//! `traceparent`, which a peer sends: what is not the standard's is no trace, and what is sent on is.

use tramline_core::trace::TraceId;

use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "traceparent",
    check,
    words: &[
        "00-",
        "ff-",
        "-01",
        "-00",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00f067aa0ba902b7",
        "0000000000000000",
    ],
    mutations: 40_000,
    memory: (1 << 20, 16),
};

fn check(input: &[u8]) {
    let Ok(header) = std::str::from_utf8(input) else {
        return;
    };
    match TraceId::of_traceparent(header) {
        Some(id) => {
            assert!(is_traceparent(header), "taken: {header:?}");
            assert_eq!(id.to_string(), &header[3..35]);
            for parent in [0, 1, u64::MAX] {
                let sent = id.traceparent(parent);
                assert!(is_traceparent(&sent), "{sent}");
                assert_eq!(TraceId::of_traceparent(&sent), Some(id));
            }
        }
        None => assert!(!is_traceparent(header), "ignored: {header:?}"),
    }
}

/// W3C Trace Context 3.2: fixed places, lower-case hexadecimal, neither id all zero; a later version may go on after one
/// more `-`.
fn is_traceparent(header: &str) -> bool {
    let bytes = header.as_bytes();
    if bytes.len() < 55 || [2, 35, 52].iter().any(|at| bytes[*at] != b'-') {
        return false;
    }
    let (version, trace, parent, flags) = (&bytes[..2], &bytes[3..35], &bytes[36..52], &bytes[53..55]);
    let hex = |part: &[u8]| part.iter().all(|b| b"0123456789abcdef".contains(b));
    let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
    [version, trace, parent, flags].into_iter().all(hex)
        && version != b"ff"
        && !zero(trace)
        && !zero(parent)
        && (bytes.len() == 55 || (version != b"00" && bytes[55] == b'-'))
}
