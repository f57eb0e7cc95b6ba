//! Counters that the programs raise, one row of a per-CPU array each.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A row of the `COUNTERS` map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[$doc])* $variant,)*
        }

        impl Counter {
            /// All rows, in order.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant,)*];

            /// The `event` label of `tramline_ebpf_events_total`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Counter::$variant => $name,)*
                }
            }

            /// Its row.
            #[inline(always)]
            pub const fn row(self) -> u32 {
                self as u32 + FIRST
            }
        }
    };
}

counters! {
    /// A TCP connect of any process below the cgroup was looked at.
    Seen = "seen",
    /// A connect of an enrolled pod was routed to the agent.
    Captured = "captured",
    /// A connect was let through: loopback, link-local, own address or excluded.
    Excluded = "excluded",
    /// The mark could not be set; the connect was refused.
    CaptureFailed = "capture_failed",
    /// A socket bound to a device was released from it, so that it could be captured.
    DeviceUnbound = "device_unbound",
    /// A captured SYN reached the agent's outbound listener.
    Outbound = "outbound",
    /// A SYN was let in because the registry knows its 4-tuple.
    Delivered = "delivered",
    /// A SYN to port 15008 reached the agent.
    Hbone = "hbone",
    /// Plaintext let through to the application.
    PlaintextPassed = "plaintext_passed",
    /// Plaintext handed to the agent for a decision.
    PlaintextAsked = "plaintext_asked",
    /// Plaintext refused.
    PlaintextDropped = "plaintext_dropped",
    /// Plaintext to a port on which nothing listens.
    PortClosed = "port_closed",
    /// No listener of the agent: it is not running. The SYN was dropped.
    NoListener = "no_listener",
    /// The registry was full; the delivery fails.
    RegistryFull = "registry_full",
    /// The table of listening ports was full.
    ListeningFull = "listening_full",
    /// The ring buffer was full; an event was lost.
    EventLost = "event_lost",
    /// A health check of the kubelet dialled a pod of this node.
    Probe = "probe",
    /// A SYN from outside carried the pod's own address as source: refused.
    Forged = "forged",
    /// A pod without a row in `PLAINTEXT`: refused.
    PlaintextUnknown = "plaintext_unknown",
    /// A connect had a verdict of the agent's.
    VerdictHit = "verdict_hit",
    /// A connect had none: to the agent.
    VerdictMiss = "verdict_miss",
    /// A connect's verdict was made before a change: to the agent.
    VerdictStale = "verdict_stale",
    /// A connect between two pods of this node was let pass.
    PassedDirect = "passed_direct",
    /// A connect out of the mesh was let pass.
    PassedOutside = "passed_outside",
    /// A connect was refused by a verdict.
    VerdictDenied = "verdict_denied",
    /// A SYN between two pods of this node reached the application, because its 4-tuple is known.
    DirectDelivered = "direct_delivered",
    /// The same, but something has changed since its connect: to the agent.
    DirectStale = "direct_stale",
    /// A connection that the kernel let pass found no room in the table of those that live.
    PassedFull = "passed_full",
    /// The ring buffer was full; a moment of a connection that the kernel let pass was lost.
    PassageLost = "passage_lost",
    /// A connect to a Service was led to an endpoint of this node, or out of the mesh.
    ServiceLed = "service_led",
    /// An endpoint was chosen for a connect to a Service, and the agent has to connect to it.
    ServiceHandedOver = "service_handed_over",
    /// The same, because nothing listens at an endpoint of this node.
    ServiceNotListening = "service_not_listening",
}

/// The build for tests of upgrades counts in other rows.
const FIRST: u32 = cfg!(feature = "next-layout") as u32;

/// Rows of the `COUNTERS` map.
pub const COUNTERS: usize = Counter::ALL.len() + FIRST as usize;

#[cfg(test)]
mod tests {
    use super::Counter;

    #[test]
    fn rows_are_numbered_in_order_and_named_once() {
        let mut names = std::collections::HashSet::new();
        for (row, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, row);
            assert!(names.insert(counter.name()));
        }
    }
}
