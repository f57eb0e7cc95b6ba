//! Why a decision is what it is: every policy and rule that was asked, in the order in which [`super::decide`] asks.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::eval::{Facts, Truth, rule_matches};
use super::field::Field;
use super::policy::{Action, AuthorizationPolicy, Rule};
use super::{Connection, Decision, DeniedBy, RuleSet, decide_by, dry_run_by, with_facts};
use crate::mesh::{Mesh, Protection, Tiers};

/// Rules of one explanation that are told field by field; of the others only whether they match.
const MAX_DETAILED_RULES: usize = 1000;

/// The whole way to one decision. Plain data; its `Display` is a text of several lines for a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What PeerAuthentication asks for; `None` if the snapshot does not hold the destination.
    pub mtls: Option<MtlsStep>,
    /// The AuthorizationPolicies that apply to the destination, in the order in which they are asked.
    pub policies: Vec<PolicyStep>,
    /// What [`super::decide`] says.
    pub decision: Decision,
    /// What [`super::dry_run`] says: the decision if dry-run policies were enforced; `None` without any.
    pub dry_run: Option<Decision>,
}

/// The first question: does the destination take plaintext?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MtlsStep {
    /// The workload's port.
    pub port: u16,
    /// Whether plaintext is refused there.
    pub strict: bool,
    /// `NAMESPACE/NAME` of the PeerAuthentication that says so; `None` for the default.
    pub policy: Option<String>,
    /// Whether the peer proved an identity.
    pub identity: Option<String>,
    /// Whether the connection gets past this step.
    pub passed: bool,
}

/// To which workloads a policy applies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All: it stands in the root namespace and selects nothing in particular.
    Mesh,
    /// Those of its namespace.
    Namespace,
    /// Those with these labels, `key=value, ...`, in its namespace, or in all for a policy of the root namespace.
    Selector(String),
    /// Those behind a Service (`spec.targetRefs`), which it closes: only a waypoint could ask it, and there is none.
    Target(String),
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStep {
    /// `NAMESPACE/NAME`.
    pub policy: String,
    /// `spec.action`, as written: `ALLOW`, `DENY`, `CUSTOM` or `AUDIT`.
    pub action: &'static str,
    /// Whether it can decide: an `AUDIT` policy cannot, nor one with annotation `istio.io/dry-run`.
    pub enforced: bool,
    /// Whether it carries annotation `istio.io/dry-run`.
    pub dry_run: bool,
    /// To which workloads it applies.
    pub scope: Scope,
    /// Whether its turn came: what decided earlier leaves the rest unasked. The rules are shown all the same.
    pub asked: bool,
    /// Whether this policy is what decided.
    pub decides: bool,
    /// Index of its first rule that matches.
    pub matched: Option<usize>,
    /// Its rules; none at all match nothing.
    pub rules: Vec<RuleStep>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleStep {
    /// Index into `spec.rules`.
    pub rule: usize,
    /// Whether it matches: any `from` and any `to` and every `when`.
    pub matched: bool,
    /// Every field it gives, with its own answer. Empty for a rule that matches everything, and for the rules of an
    /// explanation beyond the first thousand.
    pub fields: Vec<FieldStep>,
    /// What its need of HTTP, which nobody looks at, makes of it.
    pub note: Option<String>,
}

/// A part of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clause {
    /// `from[]`: one entry has to match, with all of its fields.
    From,
    /// `to[]`: one entry has to match, with all of its fields.
    To,
    /// `when[]`: every entry has to match.
    When,
}

/// One field with its `not` twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldStep {
    /// The part of the rule.
    pub clause: Clause,
    /// Index of the entry.
    pub entry: usize,
    /// `principals`, `ports`, ..., or the key of a `when`; `*` for an entry that asks for nothing.
    pub field: &'static str,
    /// Whether the connection satisfies it.
    pub matched: bool,
    /// What the policy asks for, such as `one of a, b but none of c`.
    pub wanted: String,
    /// What the connection has; `None` for a name that the peer did not prove.
    pub actual: Option<String>,
}

/// Decides as [`super::decide`] does, and says how. Never needed on the data path: it costs an allocation per field.
pub fn explain(mesh: &Mesh, connection: &Connection<'_>) -> Explanation {
    let Some(protection) = mesh.policies_of(&connection.destination.uid) else {
        return Explanation {
            mtls: None,
            policies: Vec::new(),
            decision: Decision::Deny {
                by: DeniedBy::UnknownWorkload,
            },
            dry_run: None,
        };
    };
    with_facts(connection, |facts| {
        let decision = decide_by(&protection, facts);
        Explanation {
            mtls: Some(mtls(&protection, facts)),
            policies: policy_steps(mesh, &protection, facts, &decision),
            decision,
            dry_run: dry_run_by(&protection, facts),
        }
    })
}

fn mtls(protection: &Protection<'_>, facts: &Facts<'_>) -> MtlsStep {
    let requirement = protection.policies.mtls.at(facts.port);
    MtlsStep {
        port: facts.port,
        strict: requirement.strict,
        policy: requirement.by.as_ref().map(ToString::to_string),
        identity: facts.source.map(ToString::to_string),
        passed: facts.source.is_some() || !requirement.strict,
    }
}

fn policy_steps(
    mesh: &Mesh,
    protection: &Protection<'_>,
    facts: &Facts<'_>,
    decision: &Decision,
) -> Vec<PolicyStep> {
    let policies = &protection.policies;
    let trial = policies.trial().map(in_order);
    let others = trial.into_iter().flatten().filter(|policy| policy.dry_run);
    let others = others.chain(policies.scopes.iter().flat_map(|scope| &scope.audit));

    let mut details = MAX_DETAILED_RULES;
    let mut asked = !matches!(
        decision,
        Decision::Deny {
            by: DeniedBy::MtlsRequired(_)
        }
    );
    let mut steps = Vec::new();
    for policy in protection
        .closed_by
        .into_iter()
        .chain(in_order(policies.enforced()))
    {
        let mut step = policy_step(mesh, policy, facts, &mut details);
        step.asked = asked;
        // A policy has one name and one action, so nothing else can have decided by that name.
        step.decides = asked
            && match decision {
                Decision::Deny {
                    by: DeniedBy::TargetClosed(name),
                } => *name == policy.name,
                _ => decision.rule().is_some_and(|rule| rule.policy == policy.name),
            };
        asked &= !step.decides;
        steps.push(step);
    }
    for policy in others {
        let step = policy_step(mesh, policy, facts, &mut details);
        steps.push(PolicyStep {
            enforced: false,
            ..step
        });
    }
    steps
}

/// In the order in which [`super::decide`] asks.
fn in_order(scopes: [&Tiers; 2]) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
    let custom = scopes.map(|tiers| &tiers.custom);
    let deny = scopes.map(|tiers| &tiers.deny);
    let allow = scopes.map(|tiers| &tiers.allow);
    [custom, deny, allow]
        .into_iter()
        .flatten()
        .flat_map(RuleSet::policies)
}

fn policy_step(
    mesh: &Mesh,
    policy: &Arc<AuthorizationPolicy>,
    facts: &Facts<'_>,
    details: &mut usize,
) -> PolicyStep {
    let rules = rule_steps(policy, facts, details);
    PolicyStep {
        policy: policy.name.to_string(),
        action: policy.action.as_str(),
        enforced: true,
        dry_run: policy.dry_run,
        scope: scope(mesh, policy),
        asked: false,
        decides: false,
        matched: rules.iter().find(|rule| rule.matched).map(|rule| rule.rule),
        rules,
    }
}

fn scope(mesh: &Mesh, policy: &Arc<AuthorizationPolicy>) -> Scope {
    if !policy.targets.is_empty() {
        let targets: Vec<_> = policy
            .targets
            .iter()
            .map(|t| format!("{} {}", t.kind, t.name))
            .collect();
        return Scope::Target(targets.join(", "));
    }
    match &policy.selector {
        Some(selector) => {
            let pairs: Vec<_> = selector
                .labels()
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            Scope::Selector(pairs.join(", "))
        }
        None if policy.meta.object.namespace == mesh.settings().root_namespace => Scope::Mesh,
        None => Scope::Namespace,
    }
}

fn rule_steps(policy: &AuthorizationPolicy, facts: &Facts<'_>, details: &mut usize) -> Vec<RuleStep> {
    let step = |(index, rule)| {
        let detailed = *details > 0;
        *details = details.saturating_sub(1);
        RuleStep {
            rule: index,
            matched: rule_matches(policy.action, rule, facts) == Truth::Yes,
            fields: if detailed {
                field_steps(rule, facts)
            } else {
                Vec::new()
            },
            note: rule.needs_http().then(|| http_note(policy.action, rule)),
        }
    };
    policy.rules.iter().enumerate().map(step).collect()
}

fn http_note(action: Action, rule: &Rule) -> String {
    let fields: Vec<_> = rule.http_fields().collect();
    let effect = match action {
        Action::Allow => "so it lets nobody in",
        _ => "so they count as matched",
    };
    format!("HTTP is not looked at ({}), {effect}", fields.join(", "))
}

fn field_steps(rule: &Rule, facts: &Facts<'_>) -> Vec<FieldStep> {
    let mut steps = Vec::new();
    for (entry, source) in rule.from.iter().enumerate() {
        entry_steps(Clause::From, entry, &source.fields(), facts, &mut steps);
    }
    for (entry, operation) in rule.to.iter().enumerate() {
        entry_steps(Clause::To, entry, &operation.fields(), facts, &mut steps);
    }
    for (entry, condition) in rule.when.iter().enumerate() {
        let field = condition.field();
        entry_steps(Clause::When, entry, field.as_slice(), facts, &mut steps);
    }
    steps
}

fn entry_steps(
    clause: Clause,
    entry: usize,
    fields: &[(&'static str, Field<'_>)],
    facts: &Facts<'_>,
    steps: &mut Vec<FieldStep>,
) {
    let before = steps.len();
    for (name, field) in fields.iter().filter(|(_, field)| field.is_given()) {
        steps.push(FieldStep {
            clause,
            entry,
            field: name,
            matched: field.truth(facts) == Truth::Yes,
            wanted: field.wanted(),
            actual: field.actual(facts),
        });
    }
    // An entry that asks for nothing is satisfied, and so is its clause: that has to be seen.
    if steps.len() == before {
        steps.push(FieldStep {
            clause,
            entry,
            field: "*",
            matched: true,
            wanted: "anything".into(),
            actual: None,
        });
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::From => "from",
            Self::To => "to",
            Self::When => "when",
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh => f.write_str("the whole mesh"),
            Self::Namespace => f.write_str("its namespace"),
            Self::Selector(labels) => f.write_str(labels),
            Self::Target(targets) => write!(f, "{targets}, which it closes"),
        }
    }
}

impl fmt::Display for MtlsStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks = if self.strict {
            "requires mutual TLS"
        } else {
            "takes plaintext"
        };
        match &self.policy {
            Some(policy) => write!(f, "PeerAuthentication {policy}: port {} {asks}; ", self.port)?,
            None => write!(f, "no PeerAuthentication: port {} {asks}; ", self.port)?,
        }
        match &self.identity {
            Some(identity) => write!(f, "the peer is {identity}")?,
            None => f.write_str("the peer comes in plaintext")?,
        }
        f.write_str(if self.passed { ": passes" } else { ": refused" })
    }
}

impl fmt::Display for FieldStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.matched { "yes" } else { "no" };
        let Self {
            clause,
            entry,
            field,
            wanted,
            ..
        } = self;
        write!(f, "{sign}: {clause}[{entry}] ")?;
        match (&self.actual, *field) {
            (_, "*") => f.write_str(wanted),
            (Some(actual), _) => write!(f, "{field}: {actual} against {wanted}"),
            (None, _) => write!(f, "{field}: no identity against {wanted}"),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mtls) = &self.mtls {
            writeln!(f, "{mtls}")?;
        }
        for policy in &self.policies {
            let asked = match (policy.enforced, policy.dry_run, policy.asked) {
                (false, true, _) => " (dry run)",
                (false, false, _) => " (marks only)",
                (true, _, false) => " (decided before)",
                (true, _, true) => "",
            };
            writeln!(
                f,
                "{} {} for {}{asked}",
                policy.action, policy.policy, policy.scope
            )?;
            if policy.rules.is_empty() {
                writeln!(f, "  no rules: matches nothing")?;
            }
            for rule in &policy.rules {
                let decides = policy.decides && policy.matched == Some(rule.rule);
                let matched = match (rule.matched, decides) {
                    (true, true) => "matches, and decides",
                    (true, false) => "matches",
                    (false, _) => "does not match",
                };
                writeln!(f, "  rule {}: {matched}", rule.rule)?;
                for field in &rule.fields {
                    writeln!(f, "    {field}")?;
                }
                if let Some(note) = &rule.note {
                    writeln!(f, "    {note}")?;
                }
            }
        }
        if let Some(dry_run) = &self.dry_run {
            writeln!(f, "if the dry-run policies were enforced: {dry_run}")?;
        }
        write!(f, "{}", self.decision)
    }
}
