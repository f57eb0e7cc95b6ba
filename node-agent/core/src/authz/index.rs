//! From a connection to the few rules that can match it, however many there are.
//!
//! Each rule is filed under values that a connection must have for it to match: of the rule's clauses the one whose
//! values the fewest other rules share. Where many share even those, they are filed again by another clause. A rule
//! without such values (nothing but `not` fields) is asked every time. The index only narrows down: what it finds is
//! still evaluated, by the same code as everything else.

mod anchor;
mod nested;
mod prefixes;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use self::anchor::{Anchor, Name, Options};
use self::nested::{Covers, Nested};
use self::prefixes::Prefixes;
use super::eval::Facts;
use super::policy::Rule;

/// A list this short is cheaper to walk than to look up.
const SHORT: usize = 8;
/// How often a list is filed again.
const MAX_DEPTH: usize = 4;
/// Values under which a rule may be filed again; the first time there is no bound. It bounds the copies.
const MAX_REFILED: usize = 8;

/// Numbers of rules, in order.
type List = Box<[u32]>;

#[derive(Debug, Clone)]
pub(super) enum Index {
    Short(List),
    Filed(Box<Filed>),
}

impl Default for Index {
    fn default() -> Self {
        Self::Short(List::default())
    }
}

type ByText = HashMap<Arc<str>, Index>;
type ByPrefix = Prefixes<Index>;
type ByNet = Nested<Net, Index>;

/// The tables, one per way of comparing.
#[derive(Debug, Clone, Default)]
pub(super) struct Filed {
    /// Rules that nothing finds.
    always: List,
    named: Index,
    exact: [ByText; 4],
    prefix: [ByPrefix; 4],
    /// Patterns and values written backwards.
    suffix: [ByPrefix; 4],
    source: ByNet,
    destination: ByNet,
    ports: HashMap<u16, Index>,
}

/// A range of addresses, ordered so that [`Nested`] can hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Net {
    is_v6: bool,
    /// The bits of the address, at the upper end for either family.
    bits: u128,
    len: u8,
}

impl Net {
    fn of(net: IpNet) -> Self {
        Self {
            len: net.prefix_len(),
            ..Self::host(net.network())
        }
    }

    fn host(address: IpAddr) -> Self {
        let (is_v6, bits) = match address {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (true, v6.to_bits()),
        };
        Self {
            is_v6,
            bits,
            len: 128,
        }
    }
}

impl Covers for Net {
    fn covers(&self, other: &Self) -> bool {
        let mask = match self.len {
            0 => 0,
            len => u128::MAX << (128 - u32::from(len.min(128))),
        };
        self.is_v6 == other.is_v6 && self.len <= other.len && (self.bits ^ other.bits) & mask == 0
    }
}

impl Index {
    /// Files rules under their numbers, which are their places in the slice.
    pub(super) fn new(rules: &[&Rule]) -> Self {
        if rules.len() <= SHORT {
            return Self::Short((0_u32..).take(rules.len()).collect());
        }
        let options: Vec<_> = rules.iter().map(|rule| Options::of(rule)).collect();
        let all = (0_u32..).take(rules.len()).map(|rule| (rule, 0)).collect();
        file(all, &options, 0)
    }

    /// Calls `found` with every list in which a rule that matches may stand.
    pub(super) fn visit(&self, probe: &Probe<'_>, found: &mut impl FnMut(&[u32])) {
        match self {
            Self::Short(list) => found(list),
            Self::Filed(filed) => filed.visit(probe, found),
        }
    }
}

/// Files rules, each with the clauses by which it was filed before.
fn file(rules: Vec<(u32, u16)>, options: &[Options], depth: usize) -> Index {
    let short = |rules: Vec<(u32, u16)>| Index::Short(rules.into_iter().map(|(rule, _)| rule).collect());
    if rules.len() <= SHORT || depth == MAX_DEPTH {
        return short(rules);
    }
    let options_of = |rule: u32| usize::try_from(rule).ok().and_then(|rule| options.get(rule));
    let mut shared: HashMap<&Anchor, usize> = HashMap::new();
    for (rule, used) in &rules {
        for anchor in options_of(*rule)
            .into_iter()
            .flat_map(|options| options.all(*used))
        {
            *shared.entry(anchor).or_default() += 1;
        }
    }
    let limit = if depth == 0 { usize::MAX } else { MAX_REFILED };
    let cost = |anchor: &Anchor| shared.get(anchor).copied().unwrap_or(usize::MAX);
    let mut always = Vec::new();
    let mut filed: HashMap<&Anchor, Vec<(u32, u16)>> = HashMap::new();
    for (rule, used) in &rules {
        let cheapest = options_of(*rule).and_then(|options| options.cheapest(*used, limit, cost));
        match cheapest {
            // Filed under what all of them share, it would be found every time all the same.
            Some((clause, cost, anchors)) if cost < rules.len() => {
                for anchor in anchors {
                    let list = filed.entry(anchor).or_default();
                    // Two entries of one clause may name one value.
                    if list.last().is_none_or(|(last, _)| last != rule) {
                        list.push((*rule, used | 1 << clause));
                    }
                }
            }
            _ => always.push(*rule),
        }
    }
    if filed.is_empty() {
        return short(rules);
    }
    let children = filed
        .into_iter()
        .map(|(anchor, rules)| (anchor.clone(), file(rules, options, depth + 1)));
    Index::Filed(Box::new(Filed::new(always.into(), children)))
}

impl Filed {
    fn new(always: List, children: impl Iterator<Item = (Anchor, Index)>) -> Self {
        let mut made = Self {
            always,
            ..Self::default()
        };
        let mut prefix: [Vec<(Box<[u8]>, Index)>; 4] = Default::default();
        let mut suffix: [Vec<(Box<[u8]>, Index)>; 4] = Default::default();
        let (mut source, mut destination) = (Vec::new(), Vec::new());
        for (anchor, index) in children {
            match anchor {
                Anchor::Exact(name, text) => {
                    *entry(&mut made.exact, name).entry(text).or_default() = index;
                }
                Anchor::Prefix(name, text) => entry(&mut prefix, name).push((text.as_bytes().into(), index)),
                Anchor::Suffix(name, text) => {
                    entry(&mut suffix, name).push((text.bytes().rev().collect(), index));
                }
                Anchor::Named => made.named = index,
                Anchor::SourceNet(net) => source.push((Net::of(net), index)),
                Anchor::DestinationNet(net) => destination.push((Net::of(net), index)),
                Anchor::Port(port) => {
                    made.ports.insert(port, index);
                }
            }
        }
        made.prefix = prefix.map(Prefixes::new);
        made.suffix = suffix.map(Prefixes::new);
        made.source = Nested::new::<Net>(source.into_iter());
        made.destination = Nested::new::<Net>(destination.into_iter());
        made
    }

    fn visit(&self, probe: &Probe<'_>, found: &mut impl FnMut(&[u32])) {
        found(&self.always);
        if let Some(index) = self.ports.get(&probe.port) {
            index.visit(probe, found);
        }
        match probe.source {
            Some(source) => visit_nets(&self.source, source, probe, found),
            // It may be any: what is filed under an address may match.
            None => self
                .source
                .all()
                .for_each(|index| index.visit(probe, &mut *found)),
        }
        visit_nets(&self.destination, probe.destination, probe, found);
        let Some(names) = &probe.names else {
            return;
        };
        self.named.visit(probe, found);
        for (table, value) in self.exact.iter().zip(names.forwards) {
            if !table.is_empty()
                && let Some(index) = table.get(value)
            {
                index.visit(probe, found);
            }
        }
        for (table, value) in self.prefix.iter().zip(names.forwards) {
            table.of(value.as_bytes(), |index| index.visit(probe, found));
        }
        if self.suffix.iter().all(Prefixes::is_empty) {
            return;
        }
        for (table, value) in self.suffix.iter().zip(names.backwards()) {
            table.of(value, |index| index.visit(probe, found));
        }
    }
}

fn visit_nets(table: &ByNet, address: Net, probe: &Probe<'_>, found: &mut impl FnMut(&[u32])) {
    for index in table.covering(&address) {
        index.visit(probe, found);
    }
}

fn entry<T>(tables: &mut [T; 4], name: Name) -> &mut T {
    let [principal, namespace, account, trust_domain] = tables;
    match name {
        Name::Principal => principal,
        Name::Namespace => namespace,
        Name::Account => account,
        Name::TrustDomain => trust_domain,
    }
}

/// A connection, taken apart once for all tables.
pub(super) struct Probe<'a> {
    names: Option<Names<'a>>,
    /// `None` while it may be any.
    source: Option<Net>,
    destination: Net,
    port: u16,
}

/// In the order of [`entry`].
struct Names<'a> {
    forwards: [&'a str; 4],
    backwards: OnceCell<[Vec<u8>; 4]>,
}

impl Names<'_> {
    fn backwards(&self) -> &[Vec<u8>; 4] {
        self.backwards
            .get_or_init(|| self.forwards.map(|name| name.bytes().rev().collect()))
    }
}

impl<'a> Probe<'a> {
    /// `None` where one of several addresses was dialled: then no table can say what to look at.
    pub(super) fn of(facts: &Facts<'a>) -> Option<Self> {
        let [destination] = facts.destination_addresses else {
            return None;
        };
        Some(Self {
            names: facts.source.map(|id| Names {
                forwards: [
                    id.principal(),
                    id.namespace(),
                    id.account(),
                    id.trust_domain().as_str(),
                ],
                backwards: OnceCell::new(),
            }),
            source: facts.source_address.map(Net::host),
            destination: Net::host(*destination),
            port: facts.port,
        })
    }
}
