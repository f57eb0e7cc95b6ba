//! What a rule can be found by: values that a connection must have for the rule to match.

use std::sync::Arc;

use ipnet::IpNet;

use super::super::field::Field;
use super::super::matcher::StringMatch;
use super::super::policy::Rule;

/// The names of an identity that are compared as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Principal,
    Namespace,
    /// `NAMESPACE/sa/NAME`, as it stands in the principal.
    Account,
    TrustDomain,
}

/// One value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Anchor {
    Exact(Name, Arc<str>),
    Prefix(Name, Arc<str>),
    Suffix(Name, Arc<str>),
    /// Any identity at all.
    Named,
    SourceNet(IpNet),
    DestinationNet(IpNet),
    Port(u16),
}

impl Anchor {
    /// The values of a field that is given; a rule that matches has a connection with one of them. `None` for a field
    /// without, which is satisfied by anything but its `not` twin's values.
    fn of_field(field: Field<'_>) -> Option<Vec<Self>> {
        let texts = |name: Name, list: &[StringMatch]| {
            let anchor = |pattern: &StringMatch| match pattern {
                StringMatch::Exact(text) => Self::Exact(name, text.clone()),
                StringMatch::Prefix(text) => Self::Prefix(name, text.clone()),
                StringMatch::Suffix(text) => Self::Suffix(name, text.clone()),
                StringMatch::Present => Self::Named,
            };
            list.iter().map(anchor).collect::<Vec<_>>()
        };
        let anchors = match field {
            Field::Principal(list) => texts(Name::Principal, &list.any),
            Field::Namespace(list) => texts(Name::Namespace, &list.any),
            Field::TrustDomain(list) => texts(Name::TrustDomain, &list.any),
            Field::ServiceAccount(list) => {
                let anchor = |account: &super::super::matcher::ServiceAccountMatch| {
                    Self::Exact(Name::Account, account.in_principal().into())
                };
                list.any.iter().map(anchor).collect()
            }
            Field::SourceIp(list) => list.any.iter().map(|m| Self::SourceNet(m.net())).collect(),
            Field::DestinationIp(list) => list.any.iter().map(|m| Self::DestinationNet(m.net())).collect(),
            Field::Port(list) => list.any.iter().map(|port| Self::Port(*port)).collect(),
        };
        (!anchors.is_empty()).then_some(anchors)
    }
}

/// The ways to find one rule: for each clause, for each of its entries, for each usable field, the values.
pub(super) struct Options {
    /// By clause: 0 is `to`, 1 is `from`, 2 and up are the entries of `when`. `None`: not usable.
    clauses: Vec<Option<Vec<Vec<Vec<Anchor>>>>>,
}

/// A clause beyond these is never used to find a rule.
const MAX_CLAUSES: usize = 16;

impl Options {
    pub(super) fn of(rule: &Rule) -> Self {
        let fields = |fields: &[(&'static str, Field<'_>)]| -> Option<Vec<Vec<Anchor>>> {
            let usable: Vec<_> = fields
                .iter()
                .filter_map(|(_, field)| Anchor::of_field(*field))
                .collect();
            (!usable.is_empty()).then_some(usable)
        };
        // An absent clause matches anything, and so does one with an entry that asks for nothing positive.
        let clause = |entries: Option<Vec<_>>| entries.filter(|entries| !entries.is_empty());
        let to = clause(rule.to.iter().map(|entry| fields(&entry.fields())).collect());
        let from = clause(rule.from.iter().map(|entry| fields(&entry.fields())).collect());
        let when = rule
            .when
            .iter()
            .filter_map(|condition| condition.field())
            .map(|field| fields(&[field]).map(|fields| vec![fields]));
        let clauses = [to, from].into_iter().chain(when).take(MAX_CLAUSES).collect();
        Self { clauses }
    }

    /// Every value that the rule could be found by, but for the clauses that are used already.
    pub(super) fn all(&self, used: u16) -> impl Iterator<Item = &Anchor> {
        self.unused(used)
            .flat_map(|(_, entries)| entries.iter().flatten().flatten())
    }

    /// The clause, with its values, that `cost` makes cheapest; the cost of a clause is that of its dearest value.
    pub(super) fn cheapest(
        &self,
        used: u16,
        limit: usize,
        cost: impl Fn(&Anchor) -> usize,
    ) -> Option<(usize, usize, Vec<&Anchor>)> {
        let dearest = |anchors: &&Vec<Anchor>| anchors.iter().map(&cost).max().unwrap_or(usize::MAX);
        self.unused(used)
            .filter_map(|(clause, entries)| {
                let chosen: Vec<_> = entries
                    .iter()
                    .filter_map(|fields| fields.iter().min_by_key(dearest))
                    .collect();
                let cost = chosen.iter().map(dearest).max()?;
                let anchors: Vec<_> = chosen.into_iter().flatten().collect();
                (anchors.len() <= limit).then_some((cost, clause, anchors))
            })
            .min_by_key(|(cost, _, anchors)| (*cost, anchors.len()))
            .map(|(cost, clause, anchors)| (clause, cost, anchors))
    }

    fn unused(&self, used: u16) -> impl Iterator<Item = (usize, &Vec<Vec<Vec<Anchor>>>)> {
        self.clauses
            .iter()
            .enumerate()
            .filter(move |(clause, _)| used & (1 << clause) == 0)
            .filter_map(|(clause, entries)| Some((clause, entries.as_ref()?)))
    }
}
