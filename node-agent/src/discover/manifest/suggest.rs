//! "Did you mean": the likeliest of a few names for one that is none of them.

/// Longer names are somebody's data, not a misspelt field.
const MAX_LENGTH: usize = 64;
/// Names in which two other characters make another word.
const SHORT: usize = 5;

/// The known name closest to `name`, if it is close: one change in three characters, at most three, however it is
/// capitalised.
pub(super) fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    let lower = name.to_lowercase();
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|known| (strsim::osa_distance(&lower, &known.to_lowercase()), *known))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, known)| known)
}

/// The known name that `name` almost is: but for upper and lower case, for two characters, or, where either is short, for one.
pub(super) fn near<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    let lower = name.to_lowercase();
    let allowed = |known: &str| {
        let shorter = name.chars().count().min(known.len());
        if shorter <= SHORT { 1 } else { 2 }
    };
    known
        .iter()
        .map(|known| (strsim::osa_distance(&lower, &known.to_lowercase()), *known))
        .filter(|(distance, known)| *distance <= allowed(known))
        .min()
        .map(|(_, known)| known)
}

/// `what`, with the name that was probably meant or else all that could be.
pub(super) fn not_one_of(what: &str, name: &str, known: &[&str]) -> String {
    match (closest(name, known), known) {
        (Some(meant), _) => format!("{what}; did you mean `{meant}`?"),
        (None, [only]) => format!("{what}; the only one is `{only}`"),
        (None, known) => format!("{what}; those that are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{closest, near};

    #[test]
    fn what_is_close_is_found_and_what_is_not_is_not() {
        let known = ["principals", "notPrincipals", "namespaces", "to", "from"];
        for (name, meant) in [
            ("principal", Some("principals")),
            ("notprincipals", Some("notPrincipals")),
            ("namespace", Some("namespaces")),
            ("form", Some("from")),
            ("t", Some("to")),
            ("when", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(name, &known), meant, "{name}");
        }
        assert_eq!(closest(&"principals".repeat(9), &known), None);
    }

    #[test]
    fn what_is_near_is_always_what_would_be_suggested() {
        let known = ["nodeName", "ready", "ip", "internalTrafficPolicy"];
        for (name, meant) in [
            ("nodename", Some("nodeName")),
            ("nodNaem", Some("nodeName")),
            ("nodeNa", Some("nodeName")),
            ("nodeN", None),
            ("redy", Some("ready")),
            ("rdy", None),
            ("IP", Some("ip")),
            ("ips", Some("ip")),
            ("ipv6", None),
            ("nternaltraficpolicy", Some("internalTrafficPolicy")),
            ("ternaltraficpolicy", None),
            ("", None),
        ] {
            assert_eq!(near(name, &known), meant, "{name}");
            if let Some(meant) = meant {
                assert_eq!(closest(name, &[meant]), Some(meant), "{name}");
            }
        }
    }
}
