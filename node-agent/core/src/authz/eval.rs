//! Evaluation in three values, so that one evaluator serves both the decision (everything known) and the projection
//! for the kernel (the peer's address not known yet).

use std::net::IpAddr;

use super::field::Field;
use super::policy::{Action, Rule};
use crate::identity::SpiffeId;

/// Kleene's three values, ordered so that AND is the minimum and OR the maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    Maybe,
    Yes,
}

impl Truth {
    pub(super) fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::Yes } else { Self::No }
    }
}

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The identity the peer proved.
    pub(crate) source: Option<&'a SpiffeId>,
    /// The peer's address; `None` while it may be any.
    pub(crate) source_address: Option<IpAddr>,
    /// The address that was dialled: one of these.
    pub(crate) destination_addresses: &'a [IpAddr],
    /// The port that was dialled.
    pub(crate) port: u16,
}

/// Any of `from` AND any of `to` AND all of `when`.
///
/// Nobody looks at HTTP. A rule that lets in needs all it asks for, so one that asks for HTTP never matches. A rule
/// that keeps out must not let pass what it was written against, so what it asks of HTTP counts as fulfilled: an
/// entry of nothing else matches everything.
pub(super) fn rule_matches(action: Action, rule: &Rule, facts: &Facts<'_>) -> Truth {
    if action == Action::Allow && rule.needs_http() {
        return Truth::No;
    }
    // Cheapest first: a port that does not fit spares the identity's string comparisons.
    let to = any_or_absent(&rule.to, |operation| all(operation.fields(), facts));
    if to == Truth::No {
        return to;
    }
    let from = any_or_absent(&rule.from, |source| all(source.fields(), facts));
    if from == Truth::No {
        return from;
    }
    let conditions = rule.when.iter().filter_map(|condition| condition.field());
    to.min(from).min(all(conditions, facts))
}

/// Whether a peer that proved no identity can match, whatever its address and port: no clause asks for a name.
pub(super) fn may_match_without_identity(rule: &Rule) -> bool {
    let nameless = |(_, field): (&'static str, Field<'_>)| !field.needs_identity();
    (rule.from.is_empty()
        || rule
            .from
            .iter()
            .any(|source| source.fields().into_iter().all(nameless)))
        && rule
            .when
            .iter()
            .filter_map(|condition| condition.field())
            .all(nameless)
}

fn any_or_absent<T>(entries: &[T], matches: impl Fn(&T) -> Truth) -> Truth {
    entries.iter().map(matches).max().unwrap_or(Truth::Yes)
}

fn all<'a>(fields: impl IntoIterator<Item = (&'static str, Field<'a>)>, facts: &Facts<'_>) -> Truth {
    let mut all = Truth::Yes;
    for (_, field) in fields {
        all = all.min(field.truth(facts));
        if all == Truth::No {
            break;
        }
    }
    all
}
