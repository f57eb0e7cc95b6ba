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
