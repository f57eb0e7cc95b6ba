//! SPIFFE IDs, which come from certificates: two texts never name one workload, and what is read prints as it was.

use tramline_core::identity::SpiffeId;

use super::is_reason;
use crate::Target;

pub(super) const TARGET: Target = Target {
    name: "identity",
    check,
    words: &[
        "spiffe://",
        "/ns/",
        "/sa/",
        "cluster.local",
        "%2F",
        "..",
        "//",
        "?",
        "#",
        "@",
    ],
    mutations: 40_000,
    memory: (1 << 20, 16),
};

fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match SpiffeId::parse(text) {
        Ok(id) => {
            assert!(is_identity(text), "taken: {text:?}");
            assert_eq!(id.to_string(), text);
            let parts = (id.trust_domain().as_str(), id.namespace(), id.service_account());
            assert_eq!(
                format!("spiffe://{}/ns/{}/sa/{}", parts.0, parts.1, parts.2),
                text
            );
            assert_eq!(id.principal(), &text["spiffe://".len()..]);
            assert_eq!(SpiffeId::new(id.trust_domain(), parts.1, parts.2), Ok(id));
        }
        Err(error) => {
            assert!(!is_identity(text), "refused: {text:?}: {error}");
            let reason = error.to_string();
            assert!(is_reason(&reason), "{reason:?}");
        }
    }
}

/// The grammar once more: SPIFFE-ID 2.1 to 2.3, RFC 1123, section by section of the text.
fn is_identity(text: &str) -> bool {
    let of = |part: &str, more: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    let name = |part: &str| of(part, "-") && !part.starts_with('-') && !part.ends_with('-');
    let parts: Vec<&str> = text.split('/').collect();
    let ["spiffe:", "", domain, "ns", namespace, "sa", account] = parts[..] else {
        return false;
    };
    text.len() <= 2048
        && domain.len() <= 255
        && of(domain, "-._")
        && namespace.len() <= 63
        && name(namespace)
        && account.len() <= 253
        && account.split('.').all(name)
}
