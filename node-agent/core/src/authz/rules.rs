//! The policies of one kind that apply to a workload, in the order in which they are asked.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::PolicyRule;
use super::eval::{Facts, Truth, may_match_without_identity, rule_matches};
use super::index::{Index, Probe};
use super::policy::{Action, AuthorizationPolicy, Rule};

/// Policies in order, with their rules indexed.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleSet {
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// Index of the policy and of the rule in it, for every rule that can match, in order.
    rules: Vec<(u32, u32)>,
    index: Index,
    anonymous: Anonymous,
}

/// The rules that a peer without identity may match, which are few where rules name identities.
#[derive(Debug, Clone, Default)]
struct Anonymous {
    /// Rules that name the ports they are for, by port.
    by_port: HashMap<u16, Vec<u32>>,
    /// The others.
    others: Vec<u32>,
    /// Every port that one of these rules names.
    named: BTreeSet<u16>,
}

impl RuleSet {
    pub(crate) fn new(policies: Vec<Arc<AuthorizationPolicy>>) -> Self {
        let mut numbers = Vec::new();
        let mut rules = Vec::new();
        for (policy_number, policy) in (0_u32..).zip(&policies) {
            for (number, rule) in (0_u32..).zip(&policy.rules) {
                // Dropped: it lets nobody in, whoever asks.
                if policy.action == Action::Allow && rule.needs_http() {
                    continue;
                }
                numbers.push((policy_number, number));
                rules.push(rule);
            }
        }
        let index = Index::new(&rules);
        let anonymous = Anonymous::new(&rules);
        Self {
            rules: numbers,
            index,
            anonymous,
            policies,
        }
    }

    /// Whether there is no policy, which is not the same as no rule.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The policies, in order.
    pub(crate) fn policies(&self) -> &[Arc<AuthorizationPolicy>] {
        &self.policies
    }

    /// The first rule in order whose truth is accepted. Nothing may be unknown of the connection.
    pub(crate) fn first(&self, facts: &Facts<'_>, accept: impl Fn(Truth) -> bool) -> Option<PolicyRule> {
        let mut first: Option<u32> = None;
        let mut look = |list: &[u32]| {
            // Lists are in order: beyond what is found already, and beyond the first match, nothing can be earlier.
            let earlier = list
                .iter()
                .take_while(|number| first.is_none_or(|first| **number < first));
            let matching = earlier.copied().find(|number| accept(self.truth(*number, facts)));
            first = matching.or(first);
        };
        match Probe::of(facts) {
            Some(probe) => self.index.visit(&probe, &mut look),
            None => look(&(0_u32..).take(self.rules.len()).collect::<Vec<_>>()),
        }
        let (policy, rule) = self.rule(first?)?;
        Some(PolicyRule {
            policy: policy.name.clone(),
            action: policy.action,
            rule,
        })
    }

    /// Whether there is a rule whose truth is accepted, for a peer without identity of which nothing else need be known.
    pub(crate) fn any_without_identity(&self, facts: &Facts<'_>, accept: impl Fn(Truth) -> bool) -> bool {
        let for_port = self.anonymous.by_port.get(&facts.port).into_iter().flatten();
        for_port
            .chain(&self.anonymous.others)
            .any(|number| accept(self.truth(*number, facts)))
    }

    /// The ports on which peers without identity may get another answer than on others.
    pub(crate) fn ports_without_identity(&self) -> impl Iterator<Item = u16> {
        self.anonymous.named.iter().copied()
    }

    fn truth(&self, number: u32, facts: &Facts<'_>) -> Truth {
        match self.rule(number) {
            Some((policy, rule)) => policy
                .rules
                .get(rule)
                .map_or(Truth::No, |rule| rule_matches(policy.action, rule, facts)),
            None => Truth::No,
        }
    }

    fn rule(&self, number: u32) -> Option<(&AuthorizationPolicy, usize)> {
        let (policy, rule) = self.rules.get(usize::try_from(number).ok()?)?;
        let policy = self.policies.get(usize::try_from(*policy).ok()?)?;
        Some((policy, usize::try_from(*rule).ok()?))
    }
}

impl Anonymous {
    fn new(rules: &[&Rule]) -> Self {
        let mut made = Self::default();
        let anonymous = (0_u32..)
            .zip(rules)
            .filter(|(_, rule)| may_match_without_identity(rule));
        for (number, rule) in anonymous {
            made.named.extend(rule.named_ports());
            let for_named_ports = !rule.to.is_empty() && rule.to.iter().all(|to| !to.ports.any.is_empty());
            if !for_named_ports {
                made.others.push(number);
                continue;
            }
            for port in rule.to.iter().flat_map(|to| &to.ports.any) {
                made.by_port.entry(*port).or_default().push(number);
            }
        }
        made
    }
}
