//! What serde says about a value of the wrong shape, in the words of a manifest.

use std::fmt::Write as _;

use super::suggest;

/// The field and the problem, from the path at which reading stopped and serde's message.
pub(super) fn problem(path: &str, message: &str) -> (Option<String>, String) {
    let mut path = path.trim_matches('.').to_owned();
    if let Some((name, known)) = unknown_field(message) {
        if !(path == name || path.ends_with(&format!(".{name}"))) {
            push(&mut path, name);
        }
        return (Some(path), suggest::not_one_of("is not a field", name, &known));
    }
    if let Some(name) = quoted(message, "missing field `") {
        push(&mut path, name);
        return (Some(path), "is required".into());
    }
    if let Some(name) = quoted(message, "duplicate field `") {
        push(&mut path, name);
        return (Some(path), "is given twice".into());
    }
    let problem = mismatch(message).unwrap_or_else(|| message.to_owned());
    (Some(path).filter(|path| !path.is_empty()), problem)
}

fn push(path: &mut String, name: &str) {
    let dot = if path.is_empty() { "" } else { "." };
    let _ = write!(path, "{dot}{name}");
}

fn quoted<'m>(message: &'m str, before: &str) -> Option<&'m str> {
    message.strip_prefix(before)?.strip_suffix('`')
}

fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    // The name is the manifest's and may hold anything; the list behind it is ours.
    let (name, known) = rest.rsplit_once("`, expected ")?;
    Some((name, known.split('`').skip(1).step_by(2).collect()))
}

fn mismatch(message: &str) -> Option<String> {
    let rest = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let found = match found {
        "sequence" => "a list",
        "map" => "an object",
        "unit value" | "null" | "Option value" => "null",
        other => other
            .strip_prefix("integer ")
            .or_else(|| other.strip_prefix("string "))
            .or_else(|| other.strip_prefix("boolean "))
            .or_else(|| other.strip_prefix("floating point "))
            .unwrap_or(other),
    };
    let expected = match expected {
        "a string" | "string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object with fields",
        "a boolean" => "`true` or `false`",
        "u16" => "a number from 0 to 65535",
        "i64" => "a whole number",
        other if other.starts_with("struct ") => "an object with fields",
        other => other,
    };
    Some(format!("is {found} where {expected} belongs"))
}

#[cfg(test)]
mod tests {
    use super::problem;

    #[test]
    fn messages_are_put_in_the_words_of_a_manifest() {
        for (path, message, field, said) in [
            (
                "spec.a",
                "unknown field `principal`, expected one of `principals`, `ports`",
                "spec.a.principal",
                "is not a field; did you mean `principals`?",
            ),
            (
                "spec",
                "unknown field `x`, expected `spec`",
                "spec.x",
                "is not a field; the only one is `spec`",
            ),
            (
                "spec",
                "unknown field `a`, expected `b`, expected `mode`",
                "spec.a`, expected `b",
                "is not a field; the only one is `mode`",
            ),
            ("spec[0]", "missing field `kind`", "spec[0].kind", "is required"),
            (".", "missing field `kind`", "kind", "is required"),
            (
                "a",
                "invalid type: sequence, expected a string",
                "a",
                "is a list where a text belongs",
            ),
            (
                "a",
                "invalid value: integer `70000`, expected u16",
                "a",
                "is `70000` where a number from 0 to 65535 belongs",
            ),
            (
                "a",
                "invalid type: string \"x, expected y\", expected struct Metadata",
                "a",
                "is \"x, expected y\" where an object with fields belongs",
            ),
            ("a", "something else", "a", "something else"),
        ] {
            assert_eq!(problem(path, message), (Some(field.to_owned()), said.to_owned()));
        }
    }
}
