use crate::discover::manifest::Format;
use crate::discover::manifest::tests::{read, read_as};

#[test]
fn lines_are_found_under_keys_with_dots_in_lists_and_in_json() {
    let text = "# about
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: a}
- apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata:
    name: p
    annotations:
      istio.io: x
      istio.io/dry-run: \"yes\"
  spec:
    rules:
    - from:
      - source:
          namespaces:
          - a
          - \"B\"
";
    let (_, errors) = read(text);
    assert_eq!(
        errors,
        [
            "f.yaml:15: AuthorizationPolicy default/p (line 9): metadata.annotations.istio.io/dry-run: `yes` is neither \
             \"true\" nor \"false\"",
            "f.yaml:22: AuthorizationPolicy default/p (line 9): spec.rules[0].from[0].source.namespaces[1]: `B` is not a \
             namespace name (a-z, 0-9, `-`, at most 63 characters)",
        ]
    );
    let (_, errors) = read_as(
        "{\"apiVersion\": \"v1\",\n\"kind\": \"Pod\",\n\"metadata\": {\"name\": \"a\"},\n\"spec\": {},\n\"status\": {\n\"podIP\": \"x\"}}",
        Format::Json,
    );
    assert_eq!(
        errors,
        [
            "f.yaml:6: Pod default/a (line 1): status.podIP: `x` is not an IP address such as 10.0.0.1 or fd00::1"
        ]
    );
}

#[test]
fn thousands_of_errors_are_found_too() {
    let policy = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  action: NO\n";
    let (_, errors) = read(&policy.repeat(5_000));
    assert_eq!(errors.len(), 5_000);
    for (index, error) in errors.iter().enumerate() {
        let (object, field) = (6 * index + 2, 6 * index + 6);
        assert_eq!(
            *error,
            format!(
                "f.yaml:{field}: AuthorizationPolicy default/p (line {object}): spec.action: `NO` is none of ALLOW, DENY, AUDIT, CUSTOM"
            )
        );
    }
}

/// What may be read a second time is bounded: one object of megabytes with thousands of errors.
#[test]
fn lines_are_not_looked_for_for_ever() {
    let wrong = "    - \"x y\"\n".repeat(500);
    let rule = format!(
        "  - from:\n    - source:\n        ipBlocks:\n{wrong}",
        wrong = wrong.replace("    -", "        -")
    );
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec:\n  rules:\n{}",
        rule.repeat(400)
    );
    let (_, errors) = read(&text);
    assert_eq!(errors.len(), 200_000);
    assert!(
        errors[0].starts_with("f.yaml:9: AuthorizationPolicy default/p (line 1): spec.rules[0]"),
        "{}",
        errors[0]
    );
    assert!(
        errors[199_999].starts_with("f.yaml:1: AuthorizationPolicy default/p: spec.rules[399]"),
        "{}",
        errors[199_999]
    );
}
