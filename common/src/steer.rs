//! Where a SYN that arrives in an enrolled pod's namespace goes: the order of questions of `sk_lookup`,
//! apart from the maps that answer them.

use crate::{Address, HBONE_PORT, map::plaintext};

/// Where the SYN goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// The pod talks to itself.
    ToItself,
    /// The pod dialled an address outside it: the agent's outbound listener.
    Outbound,
    /// The registry knows the 4-tuple: the application.
    Deliver,
    /// The table of connections that the kernel let pass knows the 4-tuple: the application.
    Direct,
    /// The same, but something has changed since: the agent decides.
    DirectStale,
    /// From outside, with the pod's own address as source.
    Forged,
    /// A tunnel from another node.
    Hbone,
    /// A port the pod keeps out of the mesh.
    Excluded,
    /// Plaintext that policy opens.
    PlaintextPass,
    /// Plaintext that needs a decision by source.
    PlaintextAsk,
    /// Plaintext to a port where nothing listens: looks dead, as it is.
    PortClosed,
    /// Plaintext that policy refuses.
    PlaintextDrop,
    /// No row for this pod: refused.
    PlaintextUnknown,
}

/// The questions that the maps answer for the SYN's pod.
pub trait Facts {
    /// Whether the SYN arrived by the marked route to loopback: all that is captured does, nothing from outside can.
    /// (A delivery by the agent does not: the kernel gives it the interface that has the pod's address.)
    fn is_from_inside(&self) -> bool;
    /// Whether the pod has this address.
    fn is_mine(&self, address: &Address) -> bool;
    /// Whether the registry holds the SYN's 4-tuple.
    fn is_registered(&self) -> bool;
    /// Whether the kernel let this 4-tuple pass at its connect; if so, whether that would be so still.
    fn is_direct(&self) -> Option<bool>;
    /// Whether the inbound port is excluded.
    fn is_excluded(&self, port: u16) -> bool;
    /// The pod's [`plaintext`] row for the port, or its default row.
    fn plaintext(&self, port: u16) -> Option<u32>;
    /// Whether a socket of the pod listens on the port.
    fn is_listening(&self, port: u16) -> bool;
}

/// Decides. The order matters: see docs/ARCHITECTURE.md, "Inbound".
#[inline(always)]
pub fn steer(remote: &Address, local: &Address, local_port: u16, facts: &impl Facts) -> Steer {
    if same(remote, local) || local.is_loopback() {
        return Steer::ToItself;
    }
    if facts.is_mine(remote) {
        if facts.is_mine(local) {
            return Steer::ToItself;
        }
        // From outside, with a forged source: nobody in the pod dialled this.
        return if facts.is_from_inside() {
            Steer::Outbound
        } else {
            Steer::Forged
        };
    }
    if facts.is_registered() {
        return Steer::Deliver;
    }
    match facts.is_direct() {
        Some(true) => return Steer::Direct,
        Some(false) => return Steer::DirectStale,
        None => {}
    }
    if local_port == HBONE_PORT {
        return Steer::Hbone;
    }
    if facts.is_excluded(local_port) {
        return Steer::Excluded;
    }
    match facts.plaintext(local_port) {
        Some(plaintext::PASS) => Steer::PlaintextPass,
        Some(plaintext::ASK) if facts.is_listening(local_port) => Steer::PlaintextAsk,
        Some(plaintext::ASK) => Steer::PortClosed,
        Some(_) => Steer::PlaintextDrop,
        None => Steer::PlaintextUnknown,
    }
}

/// Equality by words: the derived one becomes a `memcmp` call, which a BPF program does not have.
#[inline(always)]
fn same(a: &Address, b: &Address) -> bool {
    let mut differ = 0;
    let mut i = 0;
    while i < 16 {
        differ |= a.octets[i] ^ b.octets[i];
        i += 1;
    }
    differ == 0
}

#[cfg(test)]
mod tests {
    use super::{Facts, Steer, steer};
    use crate::{Address, HBONE_PORT, map::plaintext};
    use std::net::IpAddr;

    #[derive(Default)]
    struct Pod {
        mine: Vec<Address>,
        registered: bool,
        direct: Option<bool>,
        excluded: Option<u16>,
        plaintext: Option<u32>,
        listening: bool,
        outside: bool,
    }

    impl Facts for Pod {
        fn is_from_inside(&self) -> bool {
            !self.outside
        }
        fn is_mine(&self, address: &Address) -> bool {
            self.mine.contains(address)
        }
        fn is_registered(&self) -> bool {
            self.registered
        }
        fn is_direct(&self) -> Option<bool> {
            self.direct
        }
        fn is_excluded(&self, port: u16) -> bool {
            self.excluded == Some(port)
        }
        fn plaintext(&self, _: u16) -> Option<u32> {
            self.plaintext
        }
        fn is_listening(&self, _: u16) -> bool {
            self.listening
        }
    }

    fn a(s: &str) -> Address {
        s.parse::<IpAddr>().unwrap().into()
    }

    fn pod() -> Pod {
        Pod {
            mine: vec![a("10.0.0.1"), a("fd00::1")],
            plaintext: Some(plaintext::DROP),
            ..Pod::default()
        }
    }

    fn at(pod: &Pod, remote: &str, local: &str, port: u16) -> Steer {
        steer(&a(remote), &a(local), port, pod)
    }

    #[test]
    fn a_pod_reaches_itself() {
        assert_eq!(at(&pod(), "10.0.0.1", "10.0.0.1", 80), Steer::ToItself);
        assert_eq!(at(&pod(), "127.0.0.1", "127.0.0.2", 80), Steer::ToItself);
        assert_eq!(at(&pod(), "::1", "::1", 80), Steer::ToItself);
        let mut two = pod();
        two.mine.push(a("10.0.0.2"));
        assert_eq!(at(&two, "10.0.0.1", "10.0.0.2", 80), Steer::ToItself);
    }

    #[test]
    fn what_the_pod_dials_goes_to_the_agent_whatever_the_port() {
        for port in [1, 80, HBONE_PORT, 65_535] {
            assert_eq!(at(&pod(), "10.0.0.1", "10.96.0.1", port), Steer::Outbound);
            assert_eq!(at(&pod(), "fd00::1", "fd96::1", port), Steer::Outbound);
        }
    }

    #[test]
    fn only_the_registry_opens_a_closed_port() {
        assert_eq!(at(&pod(), "10.0.0.9", "10.0.0.1", 80), Steer::PlaintextDrop);
        assert_eq!(
            at(
                &Pod {
                    registered: true,
                    ..pod()
                },
                "10.0.0.9",
                "10.0.0.1",
                80
            ),
            Steer::Deliver
        );
    }

    #[test]
    fn what_the_kernel_let_pass_arrives_unless_something_changed_meanwhile() {
        let with = |direct| Pod { direct, ..pod() };
        for (direct, to) in [
            (Some(true), Steer::Direct),
            (Some(false), Steer::DirectStale),
            (None, Steer::PlaintextDrop),
        ] {
            assert_eq!(at(&with(direct), "10.0.0.9", "10.0.0.1", 80), to);
        }
        assert_eq!(
            at(&with(Some(true)), "10.0.0.1", "10.96.0.1", 80),
            Steer::Outbound,
            "what the pod dials is not affected"
        );
    }

    #[test]
    fn a_forged_source_from_outside_gets_nothing() {
        let outside = Pod {
            outside: true,
            ..pod()
        };
        assert_eq!(at(&outside, "10.0.0.1", "10.96.0.1", 80), Steer::Forged);
    }

    #[test]
    fn plaintext_follows_the_row_and_an_absent_row_refuses() {
        let with = |plaintext, listening| Pod {
            plaintext,
            listening,
            ..pod()
        };
        let go = |p: &Pod| at(p, "10.0.0.9", "10.0.0.1", 80);
        assert_eq!(go(&with(Some(plaintext::PASS), false)), Steer::PlaintextPass);
        assert_eq!(go(&with(Some(plaintext::ASK), true)), Steer::PlaintextAsk);
        assert_eq!(go(&with(Some(plaintext::ASK), false)), Steer::PortClosed);
        assert_eq!(go(&with(Some(plaintext::DROP), true)), Steer::PlaintextDrop);
        assert_eq!(go(&with(Some(77), true)), Steer::PlaintextDrop);
        assert_eq!(go(&with(None, true)), Steer::PlaintextUnknown);
    }

    #[test]
    fn the_tunnel_port_is_the_agents_and_an_excluded_port_is_the_pods() {
        assert_eq!(at(&pod(), "10.0.0.9", "10.0.0.1", HBONE_PORT), Steer::Hbone);
        assert_eq!(
            at(
                &Pod {
                    excluded: Some(80),
                    ..pod()
                },
                "10.0.0.9",
                "10.0.0.1",
                80
            ),
            Steer::Excluded
        );
        assert_eq!(
            at(
                &Pod {
                    excluded: Some(81),
                    ..pod()
                },
                "10.0.0.9",
                "10.0.0.1",
                80
            ),
            Steer::PlaintextDrop
        );
    }
}
