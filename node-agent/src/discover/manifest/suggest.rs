//! "Did you mean": the likeliest of a few names for one that is none of them.

/// Longer names are somebody's data, not a misspelt field.
const MAX_LENGTH: usize = 64;

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
    use super::closest;

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
}
