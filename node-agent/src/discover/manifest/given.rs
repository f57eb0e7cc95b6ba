//! Fields that may be left out and may not be null.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// What is said of one that is null.
pub(super) const IS_NULL: &str = "is null; leave the field out, or write what it should hold";

/// A field of a policy, `None` where it is left out. `from:` with nothing behind it is null to YAML, and somebody's unfinished
/// line: to take it for a field that is not there would let everybody in.
#[derive(Debug)]
pub(super) struct Given<T>(pub(super) Option<T>);

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(NotNull(PhantomData))
    }
}

struct NotNull<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NotNull<T> {
    type Value = Given<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Err(E::custom(IS_NULL))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        T::deserialize(deserializer).map(|value| Given(Some(value)))
    }
}

#[cfg(test)]
mod tests {
    use crate::discover::manifest::tests::{bad, good, policy, read_as};
    use crate::discover::manifest::{Format, given::IS_NULL};

    #[test]
    fn a_part_of_a_rule_that_is_left_empty_does_not_match_everybody() {
        for (spec, at) in [
            (
                "rules:\n- from:\n  to: [{operation: {ports: [\"80\"]}}]",
                "f.yaml:6: {}: spec.rules[0].from: ",
            ),
            (
                "rules:\n- from: [{source: {namespaces: [a]}}]\n  to:",
                "f.yaml:7: {}: spec.rules[0].to: ",
            ),
            (
                "rules:\n- to: [{operation: {ports: [\"80\"]}}]\n  when: ~",
                "f.yaml:7: {}: spec.rules[0].when: ",
            ),
            (
                "rules:\n- from:\n  - source:",
                "f.yaml:7: {}: spec.rules[0].from[0].source: ",
            ),
            (
                "rules:\n- to:\n  - operation: null",
                "f.yaml:7: {}: spec.rules[0].to[0].operation: ",
            ),
            (
                "rules:\n- when:\n  - key: source.ip\n    values: [10.0.0.1]\n    notValues:",
                "f.yaml:9: {}: spec.rules[0].when[0].notValues: ",
            ),
            (
                "action: DENY\nselector:\n  matchLabels:",
                "f.yaml:7: {}: spec.selector.matchLabels: ",
            ),
            ("action: DENY\nselector:", "f.yaml:6: {}: spec.selector: "),
            ("action:\nrules: [{}]", "f.yaml:5: {}: spec.action: "),
            ("action: DENY\ntargetRefs:", "f.yaml:6: {}: spec.targetRefs: "),
            ("action: DENY\ntargetRef:", "f.yaml:6: {}: spec.targetRef: "),
            (
                "action: AUDIT\nprovider:\n  name:",
                "f.yaml:7: {}: spec.provider.name: ",
            ),
            ("action: AUDIT\nprovider:", "f.yaml:6: {}: spec.provider: "),
        ] {
            let at = at.replace("{}", "AuthorizationPolicy demo/p (line 1)");
            bad(&policy(spec), &[&at, IS_NULL]);
        }
        for (part, fields) in [
            (
                "from: [{source: {x: [\"80\"], F: }}]",
                [
                    "principals",
                    "notPrincipals",
                    "namespaces",
                    "notNamespaces",
                    "serviceAccounts",
                    "notServiceAccounts",
                    "ipBlocks",
                    "notIpBlocks",
                    "requestPrincipals",
                    "notRequestPrincipals",
                    "remoteIpBlocks",
                    "notRemoteIpBlocks",
                    "trustDomains",
                    "notTrustDomains",
                ]
                .as_slice(),
            ),
            (
                "to: [{operation: {x: [\"80\"], F: }}]",
                &[
                    "ports",
                    "notPorts",
                    "hosts",
                    "notHosts",
                    "methods",
                    "notMethods",
                    "paths",
                    "notPaths",
                ],
            ),
        ] {
            for field in fields {
                // Beside one that holds something.
                let other = if part.starts_with("to") {
                    "ports"
                } else {
                    "trustDomains"
                };
                let other = if *field == other { "notHosts" } else { other };
                let other = if part.starts_with("from") && other == "notHosts" {
                    "namespaces"
                } else {
                    other
                };
                let spec = format!("rules:\n- {part}")
                    .replace("x:", &format!("{other}:"))
                    .replace("F:", &format!("{field}:"));
                bad(&policy(&spec), &[&format!(".{field}: {IS_NULL}")]);
            }
        }
        // Written out, as the API has always taken it.
        assert_eq!(good(&policy("rules:")).authorization_policies[0].rules.len(), 0);
    }

    #[test]
    fn a_mode_that_is_left_empty_is_not_unset() {
        for (spec, at) in [
            ("mtls:\n  mode:", "f.yaml:6: {}: spec.mtls.mode: "),
            ("mtls:", "f.yaml:5: {}: spec.mtls: "),
            (
                "selector: {matchLabels: {app: a}}\nportLevelMtls:",
                "f.yaml:6: {}: spec.portLevelMtls: ",
            ),
            (
                "selector: {matchLabels: {app: a}}\nportLevelMtls:\n  8080:",
                "f.yaml:7: {}: spec.portLevelMtls.8080: ",
            ),
            (
                "selector: {matchLabels: {app: a}}\nportLevelMtls:\n  8080:\n    mode:",
                "f.yaml:8: {}: spec.portLevelMtls.8080.mode: ",
            ),
            (
                "selector:\n  matchLabels:\nmtls: {mode: PERMISSIVE}",
                "f.yaml:6: {}: spec.selector.matchLabels: ",
            ),
        ] {
            let at = at.replace("{}", "PeerAuthentication demo/p (line 1)");
            bad(
                &policy(spec).replace("AuthorizationPolicy", "PeerAuthentication"),
                &[&at, IS_NULL],
            );
        }
        let json = "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": \"PeerAuthentication\", \"metadata\": {\"name\": \"p\"},\n\
                    \"spec\": {\"mtls\": {\"mode\":\nnull}}}";
        let (_, errors) = read_as(json, Format::Json);
        assert_eq!(
            errors,
            [format!(
                "f.yaml:2: PeerAuthentication default/p (line 1): spec.mtls.mode: {IS_NULL}"
            )]
        );
    }
}
