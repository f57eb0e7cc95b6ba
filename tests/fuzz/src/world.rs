//! Policies of both kinds made of bytes, and the naive reading of them: for whoever compares something with it.

use std::net::IpAddr;

use tramline_core::authz::Action;
use tramline_core::object::Objects;
use tramline_core::peer_authentication::Mode;

use crate::input::Input;
use crate::naive::{
    self, ACCOUNTS, BLOCKS, DESTINATIONS, DOMAINS, NAMESPACE_PATTERNS, NAMESPACES, Naive, PRINCIPALS,
    TextMtls, TextPolicy, TextRule, Texts,
};

/// The pods that the policies are for: namespace and name, which is also the label `app`.
pub const PODS: &[(&str, &str)] = naive::PODS;
/// The ports that the policies name.
pub const PORTS: &[u16] = naive::PORTS;
/// The trust domain of all.
pub const TRUST_DOMAIN: &str = crate::make::TRUST_DOMAIN;

const ACTIONS: [Action; 5] = [
    Action::Allow,
    Action::Deny,
    Action::Allow,
    Action::Custom,
    Action::Audit,
];
const MODES: [Mode; 3] = [Mode::Unset, Mode::Permissive, Mode::Strict];
const SELECTORS: [Option<&str>; 3] = [None, Some("web"), Some("db")];

/// Policies.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) policies: Vec<TextPolicy>,
    pub(crate) mtls: Vec<TextMtls>,
}

/// A connection as the naive reading asks about it.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Namespace and service account; `None` in plaintext.
    pub peer: Option<(&'static str, &'static str)>,
    /// The client's address.
    pub from: IpAddr,
    /// The pod that is dialled.
    pub pod: (&'static str, &'static str),
    /// Its address.
    pub to: IpAddr,
    /// Its port.
    pub port: u16,
}

impl World {
    /// Any bytes make some.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::read(&mut Input::new(bytes))
    }

    pub(crate) fn read(input: &mut Input<'_>) -> Self {
        let mtls = (0..input.below(4)).map(|_| mtls(input)).collect();
        let policies = (0..input.below(6)).map(|_| policy(input)).collect();
        Self { policies, mtls }
    }

    /// They and [`PODS`], as a source of configuration would hand them over.
    #[must_use]
    pub fn objects(&self) -> Objects {
        naive::objects(&self.policies, &self.mtls)
    }

    /// Whether the connection is let in.
    #[must_use]
    pub fn allows(&self, asked: &Asked) -> bool {
        let Asked {
            peer,
            from,
            pod,
            to,
            port,
        } = *asked;
        Naive { peer, from, to, port }.allowed(pod, &self.policies, &self.mtls, false)
    }
}

fn mtls(input: &mut Input<'_>) -> TextMtls {
    let namespace = input.of(NAMESPACES);
    // What the core refuses is not what is compared here.
    let selector = input.of(&SELECTORS).filter(|_| namespace != "istio-system");
    let ports = match selector {
        Some(_) => PORTS[..input.below(PORTS.len())].to_vec(),
        None => Vec::new(),
    };
    TextMtls {
        namespace,
        selector,
        mode: input.of(&MODES),
        ports: ports.into_iter().map(|port| (port, input.of(&MODES))).collect(),
    }
}

fn policy(input: &mut Input<'_>) -> TextPolicy {
    TextPolicy {
        namespace: input.of(NAMESPACES),
        selector: input.of(&SELECTORS),
        action: input.of(&ACTIONS),
        dry_run: input.once_in(5),
        rules: (0..input.below(4)).map(|_| rule(input)).collect(),
    }
}

fn rule(input: &mut Input<'_>) -> TextRule {
    let from = (0..input.below(3)).map(|_| {
        let source = [PRINCIPALS, NAMESPACE_PATTERNS, ACCOUNTS, BLOCKS, DOMAINS];
        (source.map(|of| texts(input, of)), input.once_in(9))
    });
    let from = from.collect();
    let to = (0..input.below(3)).map(|_| (input.some(PORTS, 2), input.some(PORTS, 1), input.once_in(9)));
    let to = to.collect();
    let when = (0..input.below(3)).map(|_| {
        let (key, of) = input.of(&[
            ("source.ip", BLOCKS),
            ("source.namespace", NAMESPACE_PATTERNS),
            ("source.principal", PRINCIPALS),
            ("source.serviceAccount", ACCOUNTS),
            ("source.trustDomain", DOMAINS),
            ("destination.ip", DESTINATIONS),
            ("destination.port", &["80", "9090"]),
            ("request.headers[x]", &["y"]),
        ]);
        (key, texts(input, of))
    });
    let when = when.collect();
    TextRule { from, to, when }
}

/// Nothing in most fields, else up to two values and one of its `not` twin.
fn texts(input: &mut Input<'_>, of: &[&'static str]) -> Texts {
    if input.below(3) == 0 {
        (input.some(of, 2), input.some(of, 1))
    } else {
        Texts::default()
    }
}
