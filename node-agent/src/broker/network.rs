//! Routes, rules and addresses of a pod's namespace, over one netlink socket made inside it.

use super::BrokerError;
use crate::sys::netns::Netns;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
        route::{RouteMessage, RouteScope, RouteType},
        rule::{RuleAction, RuleAttribute},
    },
};
use std::{
    io,
    iter::once,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tramline_common::{CAPTURE_MARK, CAPTURE_MASK, CAPTURE_RULE_PRIORITY, CAPTURE_TABLE};

/// `lo` is the first interface of every namespace.
const LOOPBACK: u32 = 1;
/// Of the rule after the one for [`CAPTURE_TABLE`].
const REFUSAL_PRIORITY: u32 = CAPTURE_RULE_PRIORITY + 1;
/// For an answer of the kernel, which comes at once or never.
const ANSWER: Duration = Duration::from_secs(5);
/// Address changes come in bursts (two families, duplicate address detection).
const SETTLE: Duration = Duration::from_millis(50);

/// A netlink connection into a namespace, and the watch of its addresses.
pub(super) struct Network {
    handle: Handle,
    _tasks: JoinSet<()>,
}

impl Network {
    /// Connects, and tells each time that the addresses may have changed, until the connection is lost.
    pub(super) fn open(namespace: &Netns, home: &Netns) -> Result<(Self, mpsc::Receiver<()>), BrokerError> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, mut messages) = namespace
            .run(home, || rtnetlink::new_multicast_connection(&groups))
            .map_err(|source| BrokerError::Step {
                step: "opening netlink in the pod",
                source,
            })?;
        let (changes, receiver) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        tasks.spawn(async move {
            while messages.next().await.is_some() {
                tokio::time::sleep(SETTLE).await;
                while matches!(
                    futures_util::FutureExt::now_or_never(messages.next()),
                    Some(Some(_))
                ) {}
                if changes.send(()).await.is_err() {
                    return;
                }
            }
        });
        Ok((
            Self {
                handle,
                _tasks: tasks,
            },
            receiver,
        ))
    }

    /// An interface that carries the traffic of guests (virtual machines, nested containers), if there is one: their
    /// packets pass by the sockets on which capture works.
    pub(super) async fn foreign_interface(&self) -> Result<Option<String>, BrokerError> {
        let links = self.links().await?;
        Ok(links.iter().find(|link| carries_guests(link)).map(link_name))
    }

    async fn links(&self) -> Result<Vec<LinkMessage>, BrokerError> {
        let links = self.handle.link().get().execute().try_collect();
        answered("listing the pod's interfaces", links).await
    }

    /// For questions beside the watch.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Routes what carries the mark to loopback, with the pod's address as source, and nowhere else, whatever device a socket is
    /// bound to since its connect was captured: it could not be released from that without a privilege.
    ///
    /// Without `src` the kernel would take the destination as source.
    pub(super) async fn route_marked(&self, addresses: &[IpAddr]) -> Result<(), BrokerError> {
        let v4 = addresses.iter().find_map(|ip| match ip {
            IpAddr::V4(v4) => Some(*v4),
            IpAddr::V6(_) => None,
        });
        let v6 = addresses.iter().find_map(|ip| match ip {
            IpAddr::V6(v6) if !v6.is_unicast_link_local() => Some(*v6),
            _ => None,
        });
        if let Some(source) = v4 {
            let links = self.links().await?;
            let others = links.iter().map(|link| link.header.index);
            let others = others.filter(|index| *index != LOOPBACK);
            // A socket that is bound to a device finds the route of that one only, and without any the kernel takes the destination
            // for a neighbour, whatever rules say. Local routes lead to loopback whichever device they name.
            for (metric, device) in once((0, LOOPBACK)).chain(others.map(|index| (index, index))) {
                let route = RouteMessageBuilder::<Ipv4Addr>::new().pref_source(source);
                let route = marked(route).output_interface(device).priority(metric);
                answered("adding the marked IPv4 route", self.replace_route(route.build())).await?;
            }
            let rule = selecting(self.handle.rule().add().v4());
            answered("adding the IPv4 rule for marked packets", added(rule.execute())).await?;
            let rule = refusing(self.handle.rule().add().v4());
            answered("adding the IPv4 rule against other ways", added(rule.execute())).await?;
        }
        if let Some(source) = v6 {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().pref_source(source);
            let route = marked(route).output_interface(LOOPBACK);
            answered("adding the marked IPv6 route", self.replace_route(route.build())).await?;
            let rule = selecting(self.handle.rule().add().v6());
            answered("adding the IPv6 rule for marked packets", added(rule.execute())).await?;
            let rule = refusing(self.handle.rule().add().v6());
            answered("adding the IPv6 rule against other ways", added(rule.execute())).await?;
        }
        Ok(())
    }

    async fn replace_route(&self, route: RouteMessage) -> Result<(), rtnetlink::Error> {
        self.handle.route().add(route).replace().execute().await
    }
}

fn marked<T>(route: RouteMessageBuilder<T>) -> RouteMessageBuilder<T> {
    route
        .table_id(CAPTURE_TABLE)
        .scope(RouteScope::Host)
        .kind(RouteType::Local)
}

fn selecting<T>(rule: rtnetlink::RuleAddRequest<T>) -> rtnetlink::RuleAddRequest<T> {
    of_marked(rule)
        .table_id(CAPTURE_TABLE)
        .priority(CAPTURE_RULE_PRIORITY)
        .action(RuleAction::ToTable)
}

fn refusing<T>(rule: rtnetlink::RuleAddRequest<T>) -> rtnetlink::RuleAddRequest<T> {
    of_marked(rule)
        .priority(REFUSAL_PRIORITY)
        .action(RuleAction::Prohibit)
}

fn of_marked<T>(mut rule: rtnetlink::RuleAddRequest<T>) -> rtnetlink::RuleAddRequest<T> {
    let mask = RuleAttribute::FwMask(CAPTURE_MASK);
    rule.message_mut().attributes.push(mask);
    rule.fw_mark(CAPTURE_MARK)
}

/// A rule left by an earlier agent is as good as a new one.
async fn added(adding: impl Future<Output = Result<(), rtnetlink::Error>>) -> Result<(), rtnetlink::Error> {
    match adding.await {
        Err(rtnetlink::Error::NetlinkError(error))
            if error.to_io().kind() == io::ErrorKind::AlreadyExists =>
        {
            Ok(())
        }
        other => other,
    }
}

/// The kernel's answer, waited for no longer than [`ANSWER`].
async fn answered<T>(
    step: &'static str,
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(|source| BrokerError::Netlink { step, source }),
        Err(elapsed) => Err(BrokerError::Step {
            step,
            source: elapsed.into(),
        }),
    }
}

fn carries_guests(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| {
            matches!(
                info,
                LinkInfo::Kind(InfoKind::Bridge | InfoKind::Tun | InfoKind::MacVtap | InfoKind::IpVtap)
            )
        }),
        _ => false,
    })
}

fn link_name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_else(|| format!("number {}", link.header.index))
}

/// All addresses of a pod but loopback's.
pub(super) async fn addresses(handle: &Handle) -> Result<Vec<IpAddr>, BrokerError> {
    let found = handle.address().get().execute().try_collect();
    let found: Vec<AddressMessage> = answered("reading the pod's addresses", found).await?;
    let mut addresses: Vec<IpAddr> = found
        .iter()
        .filter(|message| message.header.index != LOOPBACK)
        .filter_map(local_address)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// `IFA_LOCAL` where there is one (point-to-point interfaces have the peer in `IFA_ADDRESS`).
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(*local),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    address
}
