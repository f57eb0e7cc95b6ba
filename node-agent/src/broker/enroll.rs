//! Enrolment of a pod: from a namespace's file to captured, and back.

use super::{
    Broker, BrokerError, PodRows,
    network::{self, Network},
    open_sockets::{self, OpenSocket},
    seeds::Seeds,
};
use crate::sys::netns::Netns;
use ipnet::{IpNet, Ipv6Net};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    net::{IpAddr, Ipv6Addr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
};
use tokio::sync::mpsc;
use tramline_common::{
    Address, PodId,
    map::{self, ListenerKey, PodAddress, PodPort, RangeData, direction, listener},
};

/// The families a listener exists in: a v6 socket on a specific address takes no IPv4.
pub(super) const FAMILIES: [u32; 2] = [libc::AF_INET as u32, libc::AF_INET6 as u32];

/// A pod whose connections the agent now has.
pub struct Enrolled {
    /// The pod in maps and in every later call.
    pub id: PodId,
    /// The namespace's addresses, loopback left out.
    pub addresses: Vec<IpAddr>,
    /// Where its connections arrive.
    pub listeners: Listeners,
    /// Sockets that were open before: not captured, and the agent cannot see into them. None where an agent before this one had
    /// captured the pod: what is open there is its deliveries, what it let the kernel do, and plaintext that it let in.
    pub already_open: Vec<OpenSocket>,
    /// An agent before this one had captured the pod.
    pub captured_before: bool,
    /// Told each time that the addresses may have changed; ends with the watch.
    pub address_changes: mpsc::Receiver<()>,
}

/// Non-blocking listening sockets inside the pod's namespace, one or two (by family) of each kind.
#[derive(Default)]
pub struct Listeners {
    /// Connections the pod opens; an accepted socket's local address is the original destination.
    pub outbound: Vec<TcpListener>,
    /// Tunnels from other nodes.
    pub hbone: Vec<TcpListener>,
    /// Plaintext that needs a decision.
    pub plaintext: Vec<TcpListener>,
}

/// What the broker keeps of an enrolled pod.
pub(super) struct Pod {
    pub(super) namespace: Arc<Netns>,
    /// Kept to put them back after a successor's.
    pub(super) listeners: Arc<Vec<(ListenerKey, OwnedFd)>>,
    pub(super) seeds: Arc<Mutex<Seeds>>,
    /// Ends the watch of addresses when dropped.
    network: Network,
}

impl Broker {
    /// Enrols the pod whose network namespace is at `path`: prepares routes and settings, opens the listeners,
    /// attaches `steer`, and only then lets connects be captured.
    pub async fn enroll(&self, path: &Path, rows: &PodRows) -> Result<Enrolled, BrokerError> {
        // Nothing would capture it.
        if self.waits_for_pods() {
            return Err(BrokerError::OtherLayout);
        }
        let in_namespace = |source| BrokerError::Namespace {
            path: path.to_owned(),
            source,
        };
        let namespace = Arc::new(Netns::open(path).map_err(in_namespace)?);
        let id = namespace.cookie(&self.home).map_err(in_namespace)?;
        if id == self.home.cookie(&self.home).map_err(in_namespace)? {
            return Err(BrokerError::HostNetwork(path.to_owned()));
        }
        // Two workloads in one namespace: whichever came last would speak for both.
        if self.pods().contains_key(&id) {
            return Err(BrokerError::AlreadyEnrolled(path.to_owned()));
        }
        let captured_before = self.programs.is_steered(id);
        let enrolled = self.capture(id, namespace, rows, captured_before).await;
        // What an earlier agent captured stays captured, and is closed: nobody follows the configuration for it. A pod that
        // never was must not be so by half.
        if enrolled.is_err() {
            let undone = if captured_before {
                self.shut(id)
            } else {
                self.withdraw(id)
            };
            if let Err(error) = undone {
                tracing::warn!(%error, path = %path.display(), "cannot undo a failed enrolment");
            }
        }
        enrolled
    }

    async fn capture(
        &self,
        id: PodId,
        namespace: Arc<Netns>,
        rows: &PodRows,
        captured_before: bool,
    ) -> Result<Enrolled, BrokerError> {
        self.prepare_settings(&namespace)?;
        let (network, address_changes) = Network::open(&namespace, &self.home)?;
        if let Some(name) = network.foreign_interface().await? {
            return Err(BrokerError::Foreign(name));
        }
        let addresses = network::addresses(&network.handle()).await?;
        if addresses.is_empty() {
            return Err(BrokerError::NoAddress);
        }
        network.route_marked(&addresses).await?;
        self.set_addresses(id, &addresses)?;
        self.update(id, rows)?;
        let (listeners, kept) = self.listen(id, &namespace)?;
        let open = self.open_sockets(&namespace)?;
        let before = if captured_before {
            self.seeds_before(id)
        } else {
            Seeds::default()
        };
        let before = self.seed(id, &open.listening, &before)?;
        // Whatever an earlier agent decided about this pod, this one has not.
        self.renew_version(id)?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed);
        use std::os::fd::AsFd as _;
        self.programs.steer(id, namespace.as_fd())?;
        self.maps.insert_pod(id, map::Pod::new(generation))?;
        // Once more: a port opened in between was seen neither by the first look nor by the programs.
        let open = self.open_sockets(&namespace)?;
        let seeds = self.seed(id, &open.listening, &before)?;
        self.pods().insert(
            id,
            Pod {
                namespace,
                listeners: Arc::new(kept),
                seeds: Arc::new(Mutex::new(seeds)),
                network,
            },
        );
        Ok(Enrolled {
            id,
            addresses,
            listeners,
            already_open: if captured_before {
                Vec::new()
            } else {
                open.established
            },
            captured_before,
            address_changes,
        })
    }

    /// Makes the maps' rows of a pod these, whatever they are; looks through the rows of all pods for it.
    pub fn update(&self, id: PodId, rows: &PodRows) -> Result<(), BrokerError> {
        // First what may tighten.
        let plaintext: Vec<_> = plaintext_rows(id, rows).collect();
        self.maps.set_plaintext(id, &plaintext)?;
        let ports: Vec<_> = excluded_ports(id, rows).collect();
        self.maps.set_excluded_ports(id, &ports)?;
        let ranges = &rows.excluded_outbound_ranges;
        let ranges: Vec<_> = range_rows(id, ranges).into_iter().collect();
        self.maps.set_excluded_ranges(id, &ranges)?;
        Ok(())
    }

    /// Makes the maps' rows of a pod these where they are known: `before`. Costs what differs, however many pods there are.
    ///
    /// # Errors
    /// A map refuses a row: then it is not known what they are.
    pub fn change(&self, id: PodId, before: &PodRows, rows: &PodRows) -> Result<(), BrokerError> {
        let old: BTreeMap<_, _> = plaintext_rows(id, before)
            .map(|(key, row)| (key.port, row))
            .collect();
        let set = plaintext_rows(id, rows).filter(|(key, row)| old.get(&key.port) != Some(row));
        let gone = before
            .plaintext
            .keys()
            .filter(|port| !rows.plaintext.contains_key(port));
        let gone = gone.map(|port| PodPort::new(id, *port, direction::INBOUND));
        // In the order of `update`: first what may tighten.
        let (set, gone): (Vec<_>, Vec<_>) = (set.collect(), gone.collect());
        self.maps.change_plaintext(&set, &gone)?;
        let (old, new): (Vec<_>, Vec<_>) = (
            excluded_ports(id, before).collect(),
            excluded_ports(id, rows).collect(),
        );
        let set: Vec<_> = new
            .iter()
            .filter(|key| !old.contains(key))
            .map(|key| (*key, 1))
            .collect();
        let gone: Vec<_> = old.iter().filter(|key| !new.contains(key)).copied().collect();
        self.maps.change_excluded_ports(&set, &gone)?;
        let (old, new) = (
            range_rows(id, &before.excluded_outbound_ranges),
            range_rows(id, &rows.excluded_outbound_ranges),
        );
        let set: Vec<_> = new.difference(&old).copied().collect();
        let gone: Vec<_> = old.difference(&new).copied().collect();
        Ok(self.maps.change_excluded_ranges(&set, &gone)?)
    }

    /// Ends sockets that were open before enrolment; returns how many were still there.
    pub fn close(&self, id: PodId, sockets: &[OpenSocket]) -> Result<usize, BrokerError> {
        let namespace = self.namespace(id)?;
        open_sockets::destroy(&namespace, &self.home, sockets).map_err(|source| BrokerError::Step {
            step: "closing the pod's old connections",
            source,
        })
    }

    /// Whether the pod has closed its socket with these two ends.
    pub fn is_abandoned(
        &self,
        id: PodId,
        local: std::net::SocketAddr,
        remote: std::net::SocketAddr,
    ) -> Result<bool, BrokerError> {
        let namespace = self.namespace(id)?;
        open_sockets::is_abandoned(&namespace, &self.home, local, remote).map_err(|source| {
            BrokerError::Step {
                step: "looking for a client's socket",
                source,
            }
        })
    }

    /// Leaves a pod captured with nothing that lets anything pass.
    pub(super) fn shut(&self, id: PodId) -> Result<(), BrokerError> {
        self.void_verdicts(id)?;
        self.refuse_plaintext(id)
    }

    /// Lets no plaintext into the pod, nor out of it by an exclusion: without a row the programs refuse and capture. Removing rows
    /// needs no room in a map. What can be removed is, whatever fails.
    pub fn refuse_plaintext(&self, id: PodId) -> Result<(), BrokerError> {
        let plaintext = self.maps.set_plaintext(id, &[]);
        let ports = self.maps.set_excluded_ports(id, &[]);
        let ranges = self.maps.set_excluded_ranges(id, &[]);
        Ok(plaintext.and(ports).and(ranges)?)
    }

    /// The pod whose network namespace is at `path`, enrolled or not.
    pub fn id_at(&self, path: &Path) -> Result<PodId, BrokerError> {
        Netns::open(path)
            .and_then(|namespace| namespace.cookie(&self.home))
            .map_err(|source| BrokerError::Namespace {
                path: path.to_owned(),
                source,
            })
    }

    /// Whether another namespace than the enrolled pod's is at `path` by now.
    ///
    /// A path that leads nowhere is no such proof: the namespace may live on without a name.
    pub fn is_replaced(&self, id: PodId, path: &Path) -> bool {
        self.namespace(id)
            .is_ok_and(|namespace| namespace.is_at(path).is_ok_and(|same| !same))
    }

    /// The addresses of the pod's namespace, without loopback's.
    pub async fn addresses(&self, id: PodId) -> Result<Vec<IpAddr>, BrokerError> {
        let handle = self.pods().get(&id).map(|pod| pod.network.handle());
        network::addresses(&handle.ok_or(BrokerError::NotEnrolled(id))?).await
    }

    /// Watches the pod's addresses anew, where the watch that came with the enrolment has ended.
    pub fn watch_addresses(&self, id: PodId) -> Result<mpsc::Receiver<()>, BrokerError> {
        let (network, changes) = Network::open(&*self.namespace(id)?, &self.home)?;
        match self.pods().get_mut(&id) {
            Some(pod) => pod.network = network,
            None => return Err(BrokerError::NotEnrolled(id)),
        }
        Ok(changes)
    }

    /// Makes the pod's addresses in the map these, and the marked route's source with them.
    pub async fn readdress(&self, id: PodId, addresses: &[IpAddr]) -> Result<(), BrokerError> {
        let namespace = self.namespace(id)?;
        // First what decides whose a SYN is; the route only chooses the source of sockets that are not bound.
        self.set_addresses(id, addresses)?;
        let (network, _) = Network::open(&namespace, &self.home)?;
        network.route_marked(addresses).await
    }

    /// Lets a pod go: nothing of it is captured any more and its plaintext is its own again.
    ///
    /// Also for a pod that an earlier agent enrolled, whose namespace may be gone.
    pub fn withdraw(&self, id: PodId) -> Result<(), BrokerError> {
        self.pods().remove(&id);
        // While either of these is there, so are the rows: half a release must not be a pod without capture and with
        // a `steer` that knows nothing of it. It is tried again, since the pin is still listed.
        self.maps.remove_pod(id)?;
        self.maps.verdicts.remove_version(id)?;
        self.programs.release(id)?;
        let mut results = Vec::new();
        for role in [listener::OUTBOUND, listener::HBONE, listener::PLAINTEXT] {
            for family in FAMILIES {
                results.push(self.maps.remove_listener(ListenerKey {
                    pod: id,
                    role,
                    family,
                }));
            }
        }
        results.extend([
            self.maps.set_addresses(id, &[]),
            self.maps.set_excluded_ports(id, &[]),
            self.maps.set_excluded_ranges(id, &[]),
            self.maps.set_plaintext(id, &[]),
            self.maps.clear_listening(id),
        ]);
        Ok(results.into_iter().collect::<Result<(), _>>()?)
    }

    pub(super) fn namespace(&self, id: PodId) -> Result<Arc<Netns>, BrokerError> {
        self.pods()
            .get(&id)
            .map(|pod| pod.namespace.clone())
            .ok_or(BrokerError::NotEnrolled(id))
    }

    pub(super) fn set_addresses(&self, id: PodId, addresses: &[IpAddr]) -> Result<(), BrokerError> {
        let rows: Vec<_> = addresses
            .iter()
            .map(|ip| PodAddress::new(id, Address::from(*ip)))
            .collect();
        Ok(self.maps.set_addresses(id, &rows)?)
    }

    /// The sysctls that let a marked SYN come back to this namespace (design: docs/ARCHITECTURE.md, "Capture").
    fn prepare_settings(&self, namespace: &Netns) -> Result<(), BrokerError> {
        let sys = self.proc.join("sys/net");
        let forwards = namespace
            .run(&self.home, || {
                let on = |name: &str| match std::fs::read_to_string(sys.join(name)) {
                    Ok(value) => Ok(value.trim() != "0"),
                    // A kernel without IPv6 has no such file.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                    Err(error) => Err(error),
                };
                Ok(on("ipv4/ip_forward")? || on("ipv6/conf/all/forwarding")?)
            })
            .map_err(|source| BrokerError::Step {
                step: "reading the pod's forwarding settings",
                source,
            })?;
        if forwards {
            return Err(BrokerError::Forwards);
        }
        let write = |name: &str, value: &str| std::fs::write(sys.join(name), value);
        namespace
            .run(&self.home, || {
                // Replies of the application to a client's address find the way to loopback by the SYN's mark.
                write("ipv4/tcp_fwmark_accept", "1")?;
                // And so do resets of ports where nothing listens.
                write("ipv4/fwmark_reflect", "1")?;
                write("ipv4/conf/lo/rp_filter", "0")?;
                match write("ipv6/fwmark_reflect", "1") {
                    // A kernel without IPv6 has no such file.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                }
            })
            .map_err(|source| BrokerError::Step {
                step: "setting the pod's network sysctls",
                source,
            })
    }
}

/// The default row comes last: at each moment in between, a port's answer is its old or its new one, never the new
/// default of a port that is about to get a row of its own.
fn plaintext_rows(id: PodId, rows: &PodRows) -> impl Iterator<Item = (PodPort, u32)> {
    rows.plaintext
        .iter()
        .map(|(port, verdict)| (*port, *verdict))
        .chain(std::iter::once((0, rows.plaintext_default)))
        .map(move |(port, verdict)| (PodPort::new(id, port, direction::INBOUND), verdict))
}

fn excluded_ports(id: PodId, rows: &PodRows) -> impl Iterator<Item = PodPort> {
    let outbound = rows.excluded_outbound_ports.iter();
    let outbound = outbound.map(move |port| PodPort::new(id, *port, direction::OUTBOUND));
    let inbound = rows.excluded_inbound_ports.iter();
    outbound.chain(inbound.map(move |port| PodPort::new(id, *port, direction::INBOUND)))
}

fn range_rows(id: PodId, ranges: &BTreeSet<IpNet>) -> HashSet<(u32, RangeData)> {
    let row = |bits: u8, network: IpAddr| (RangeData::prefix_len(bits), RangeData::new(id, network.into()));
    let of = |range: &IpNet| match range {
        // IPv4 is stored mapped: its network starts after 96 bits.
        IpNet::V4(v4) => vec![row(96 + v4.prefix_len(), v4.network().into())],
        IpNet::V6(v6) => without_mapped(*v6)
            .into_iter()
            .map(|part| row(part.prefix_len(), part.network().into()))
            .collect(),
    };
    ranges.iter().flat_map(of).collect()
}

/// A range of IPv6 as ranges that leave IPv4 out, which is stored mapped: of one that covers it, what lies beside it at each bit.
fn without_mapped(range: Ipv6Net) -> Vec<Ipv6Net> {
    const MAPPED: u128 = 0xffff << 32;
    const MAPPED_BITS: u8 = 96;
    if range.prefix_len() >= MAPPED_BITS || !range.contains(&Ipv6Addr::from(MAPPED)) {
        return vec![range];
    }
    let beside = (range.prefix_len() + 1..=MAPPED_BITS).filter_map(|bits| {
        let other = MAPPED ^ (1 << (128 - u32::from(bits)));
        Some(Ipv6Net::new(other.into(), bits).ok()?.trunc())
    });
    beside.collect()
}

#[cfg(test)]
mod tests {
    use super::{PodRows, plaintext_rows, range_rows, without_mapped};
    use tramline_common::map::plaintext;

    #[test]
    fn a_port_that_closes_does_so_before_the_default_opens() {
        let rows = PodRows {
            plaintext_default: plaintext::PASS,
            plaintext: [(80, plaintext::DROP)].into(),
            ..PodRows::default()
        };
        let ports: Vec<_> = plaintext_rows(7, &rows)
            .map(|(key, verdict)| (key.port, verdict))
            .collect();
        assert_eq!(ports, [(80, plaintext::DROP), (0, plaintext::PASS)]);
    }

    #[test]
    fn a_range_of_ipv6_says_nothing_of_ipv4() {
        let everything = without_mapped("::/0".parse().unwrap());
        let is_in = |address: &str| {
            let address: std::net::Ipv6Addr = address.parse().unwrap();
            everything.iter().filter(|part| part.contains(&address)).count()
        };
        for address in [
            "::",
            "::fffe:0:1",
            "::1:0:0:0",
            "2001:db8::1",
            "ffff::",
            "fd00::1",
        ] {
            assert_eq!(is_in(address), 1, "{address}");
        }
        for address in ["::ffff:0.0.0.0", "::ffff:10.0.0.1", "::ffff:255.255.255.255"] {
            assert_eq!(is_in(address), 0, "{address}");
        }
        for range in ["fd00::/8", "::ffff:a00:0/104", "::/97"] {
            assert_eq!(without_mapped(range.parse().unwrap()), [range.parse().unwrap()]);
        }
        // Both have rows in common; that of IPv4 is its own.
        let ranges = ["::/0", "::/8", "10.0.0.0/8"].map(|range| range.parse().unwrap());
        assert_eq!(range_rows(7, &ranges.into()).len(), 96 + 1);
    }
}
