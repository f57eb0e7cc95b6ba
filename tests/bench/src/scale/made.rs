//! Manifests that are made up: nothing random, so that two runs measure the same.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use tramline_harness::manifests::Manifests;
use tramline_harness::mesh::INSIDE;

/// Objects of one file: below what the agent reads of one (docs/CONFIG.md).
const PER_FILE: u32 = 500;
/// Workloads of one namespace.
const PER_NAMESPACE: u32 = 100;
/// Rules of one policy.
const RULES: u32 = 10;

/// What was written, as numbers of files.
#[derive(Debug, Default)]
pub(super) struct Written {
    policies: u32,
    workloads: u32,
}

impl Written {
    /// Makes the directory hold so many policies for `app`, of which one lets `caller` in, and so many workloads of other
    /// nodes.
    pub(super) fn change(
        &mut self,
        config: &Manifests,
        [app, caller]: [&str; 2],
        policies: u32,
        workloads: u32,
    ) -> Result<()> {
        let policy = |number| match number {
            0 => policy(app, 0, "ALLOW", &[rule(caller)]),
            _ => {
                let rules: Vec<_> = (0..RULES)
                    .map(|rule| self::rule(&format!("peer-{number}-{rule}")))
                    .collect();
                policy(
                    app,
                    number,
                    if number % 10 == 5 { "DENY" } else { "ALLOW" },
                    &rules,
                )
            }
        };
        self.policies = files(config, "scale-policies", self.policies, policies, policy)?;
        self.workloads = files(config, "scale-workloads", self.workloads, workloads, workload)?;
        Ok(())
    }
}

/// Writes `wanted` objects, and removes files of `before` that are too many; the number of files.
fn files(
    config: &Manifests,
    name: &str,
    before: u32,
    wanted: u32,
    object: impl Fn(u32) -> String,
) -> Result<u32> {
    let count = wanted.div_ceil(PER_FILE);
    for file in 0..count {
        let first = file * PER_FILE;
        let text: String = (first..wanted.min(first + PER_FILE)).map(&object).collect();
        config.write(&format!("{name}-{file}"), &text)?;
    }
    for file in count..before {
        config.remove(&format!("{name}-{file}"))?;
    }
    Ok(count)
}

fn rule(account: &str) -> String {
    format!(
        "  - from:\n    - source:\n        principals: [\"cluster.local/ns/{INSIDE}/sa/{account}\"]\n    \
         to:\n    - operation:\n        ports: [\"7001\", \"7002\", \"7003\"]\n"
    )
}

fn policy(app: &str, number: u32, action: &str, rules: &[String]) -> String {
    let mut text = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: scale-{number:05}\n  \
         namespace: {INSIDE}\nspec:\n  selector:\n    matchLabels:\n      app: {app}\n  action: {action}\n  rules:\n"
    );
    text.extend(rules.iter().map(String::as_str));
    text
}

/// A pod of another node in the mesh; before the first of a namespace, the namespace.
fn workload(number: u32) -> String {
    let namespace = number / PER_NAMESPACE;
    let mut text = String::new();
    if number.is_multiple_of(PER_NAMESPACE) {
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: far-{namespace}\n  labels:\n    \
             istio.io/dataplane-mode: tramline\n"
        );
    }
    let address = Ipv4Addr::from_bits(0x0a80_0001 + number);
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: web-{number}\n  namespace: far-{namespace}\n  \
         uid: 3b241101-e2bb-4255-8caf-4136c{number:07}\n  labels: {{app: web, version: v{}}}\nspec:\n  \
         nodeName: far-node-{}\n  serviceAccountName: sa-{}\n  containers:\n  - name: web\n    \
         ports: [{{name: http, containerPort: 8080}}]\nstatus:\n  podIPs: [{{ip: {address}}}]\n",
        number % 2,
        number % 1_000,
        number % 10,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{PER_FILE, PER_NAMESPACE, workload};

    #[test]
    fn a_hundred_thousand_workloads_are_not_too_many_for_the_agent() {
        let one: usize = (0..PER_NAMESPACE)
            .map(|number| workload(99_000 + number).len())
            .sum();
        assert!(one * 1_000 < 56 << 20, "a directory may hold 64 MiB: {one}");
        const { assert!(100_000 / PER_FILE < 2_000, "and 4,096 files") };
    }
}
