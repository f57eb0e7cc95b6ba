//! Whether what a pod sends to another pod of this node stays on this node, proven from its routes and links.
//!
//! Two pods of one node need not reach each other inside it: one with a branch network interface (Amazon's security groups for
//! pods) leaves through the network and comes back, and what it sends in plaintext would be on the wire. Only two ways are
//! taken for proven: two ports of one bridge, and a route of the node from the one's veth to the other's. Both directions have to
//! be: the answers carry as much as the questions, and rules and second interfaces can lead them elsewhere.

use super::{Broker, BrokerError};
use crate::sys::netns::Netns;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::{InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage},
        nsid::{NsidAttribute, NsidMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tramline_common::PodId;

/// The kernel answers at once.
const ANSWER: Duration = Duration::from_secs(1);
/// Changes of links and routes come in bursts.
const SETTLE: Duration = Duration::from_millis(50);

/// Why the way is not known to stay on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProven {
    /// The pod that dials has no route there.
    NoRoute,
    /// The interface of one of them is no veth.
    NotVeth,
    /// The other end of a pod's interface is not in the node's namespace.
    Elsewhere,
    /// The bridge keeps VLANs apart.
    VlanBridge,
    /// The bridge has a port that is no veth.
    Uplink,
    /// The node does not route from the one's interface to the other's.
    RoutedAway,
    /// No interface of the destination has the address.
    NoSuchAddress,
    /// What the destination answers is not known to stay, though what it is sent does.
    AnswersLeave,
    /// The kernel said something unexpected, or nothing.
    Unknown,
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "the pod has no route to the address",
            Self::NotVeth => "the interface of one of the pods is no veth",
            Self::Elsewhere => "the other end of a pod's interface is not in the node's namespace",
            Self::VlanBridge => "the bridge between them keeps VLANs apart",
            Self::Uplink => "the bridge between them has a port that leads off the node",
            Self::RoutedAway => "the node does not route from the one pod's interface to the other's",
            Self::NoSuchAddress => "no interface of the destination has the address",
            Self::AnswersLeave => "what the destination answers is not known to stay on the node",
            Self::Unknown => "the kernel does not say where packets go",
        })
    }
}

/// Netlink in one namespace, for as long as a proof takes.
struct View<'a> {
    namespace: &'a Netns,
    handle: Handle,
    _task: JoinSet<()>,
}

/// The other end of a veth: the namespace's number where it is seen from, and the interface there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FarEnd {
    namespace: i32,
    index: u32,
}

impl Broker {
    /// Whether what pod `source` sends to the address `to` of pod `destination`, and what is answered, stays on this node.
    pub async fn stays_on_node(
        &self,
        source: PodId,
        destination: PodId,
        to: IpAddr,
    ) -> Result<Result<(), NotProven>, BrokerError> {
        let (source, destination) = (self.namespace(source)?, self.namespace(destination)?);
        let source = View::open(&source, &self.home)?;
        let destination = View::open(&destination, &self.home)?;
        let node = View::open(&self.home, &self.home)?;
        let proof = prove(&source, &destination, &node, to.to_canonical());
        Ok(tokio::time::timeout(ANSWER, proof)
            .await
            .unwrap_or(Err(NotProven::Unknown)))
    }

    /// Tells each time that links, routes or rules of the node have changed: what was proven before is not any more.
    pub fn topology_changes(&self) -> Result<mpsc::Receiver<()>, BrokerError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
        ];
        let (connection, handle, mut messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|source| BrokerError::Step {
                step: "watching the node's links and routes",
                source,
            })?;
        let (changes, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            // Without a handle the connection ends.
            let _handle = handle;
            let mut tasks = JoinSet::new();
            tasks.spawn(connection);
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
        Ok(receiver)
    }
}

async fn prove(
    source: &View<'_>,
    destination: &View<'_>,
    node: &View<'_>,
    to: IpAddr,
) -> Result<(), NotProven> {
    let own = source.route(to, None, None).await?.source;
    let own = own.ok_or(NotProven::NoRoute)?;
    one_way((source, own), (destination, to), node).await?;
    one_way((destination, to), (source, own), node)
        .await
        .map_err(|why| {
            tracing::debug!(%why, from = %to, to = %own, "no proof for the answers");
            NotProven::AnswersLeave
        })
}

/// Whether what one pod sends from an address of its own to that of the other stays on the node.
async fn one_way(
    (from, own): (&View<'_>, IpAddr),
    (at, to): (&View<'_>, IpAddr),
    node: &View<'_>,
) -> Result<(), NotProven> {
    let leaves = from.route(to, Some(own), None).await?;
    let near = from.far_end(leaves.interface).await?;
    let holder = at.interface_with(to).await?;
    let other = at.far_end(holder).await?;
    let on_link = leaves.gateway.is_none();

    // A veth between the two pods.
    let between = (
        FarEnd {
            namespace: from.number_of(at.namespace).await?,
            index: holder,
        },
        FarEnd {
            namespace: at.number_of(from.namespace).await?,
            index: leaves.interface,
        },
    );
    if on_link && (near, other) == between {
        return Ok(());
    }

    let home = node.namespace;
    if near.namespace != from.number_of(home).await? || other.namespace != at.number_of(home).await? {
        return Err(NotProven::Elsewhere);
    }
    let (enters, exits) = (node.link(near.index).await?, node.link(other.index).await?);
    let (enters_bridge, exits_bridge) = (node.bridge_of(&enters).await?, node.bridge_of(&exits).await?);
    if on_link && enters_bridge.is_some() && enters_bridge == exits_bridge {
        return Ok(());
    }
    // A frame on a bridge goes to whoever has the address it is sent to: only the node itself routes it on.
    if enters_bridge.is_some() {
        let Some(gateway) = leaves.gateway else {
            return Err(NotProven::RoutedAway);
        };
        node.interface_with(gateway)
            .await
            .map_err(|_| NotProven::RoutedAway)?;
    }
    let arrives = enters_bridge.unwrap_or(near.index);
    match node.route(to, Some(own), Some(arrives)).await {
        Ok(Way {
            interface,
            gateway: None,
            ..
        }) if interface == exits_bridge.unwrap_or(other.index) => Ok(()),
        _ => Err(NotProven::RoutedAway),
    }
}

/// Where a packet goes next.
struct Way {
    interface: u32,
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
}

impl<'a> View<'a> {
    fn open(namespace: &'a Netns, home: &Netns) -> Result<Self, BrokerError> {
        let (connection, handle, _) =
            namespace
                .run(home, rtnetlink::new_connection)
                .map_err(|source| BrokerError::Step {
                    step: "opening netlink to look at routes",
                    source,
                })?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self {
            namespace,
            handle,
            _task: task,
        })
    }

    /// The route to an address, of what is sent from an address: here, or by somebody whose packets arrive by an interface.
    async fn route(&self, to: IpAddr, from: Option<IpAddr>, arriving: Option<u32>) -> Result<Way, NotProven> {
        let mut message = match to {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4, 32)
                .build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(v6, 128)
                .build(),
        };
        // The header's table, protocol and the like are for routes that are added.
        let family = message.header.address_family;
        let bits = message.header.destination_prefix_length;
        message.header = Default::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = bits;
        if let Some(from) = from {
            message.header.source_prefix_length = bits;
            message.attributes.push(RouteAttribute::Source(match from {
                IpAddr::V4(v4) => RouteAddress::Inet(v4),
                IpAddr::V6(v6) => RouteAddress::Inet6(v6),
            }));
        }
        message.attributes.extend(arriving.map(RouteAttribute::Iif));
        let replies = self.handle.route().get(message).execute();
        tokio::pin!(replies);
        let reply: RouteMessage = replies
            .next()
            .await
            .ok_or(NotProven::Unknown)?
            .map_err(|_| NotProven::NoRoute)?;
        if reply.header.kind != RouteType::Unicast {
            return Err(NotProven::NoRoute);
        }
        let mut way = Way {
            interface: 0,
            gateway: None,
            source: None,
        };
        for attribute in reply.attributes {
            match attribute {
                RouteAttribute::Oif(index) => way.interface = index,
                RouteAttribute::Gateway(RouteAddress::Inet(v4)) => way.gateway = Some(v4.into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => way.gateway = Some(v6.into()),
                // A gateway of the other family.
                RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) | RouteAttribute::Gateway(_) => {
                    return Err(NotProven::NoRoute);
                }
                RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => way.source = Some(v4.into()),
                RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => way.source = Some(v6.into()),
                _ => {}
            }
        }
        if way.interface == 0 {
            return Err(NotProven::NoRoute);
        }
        Ok(way)
    }

    async fn link(&self, index: u32) -> Result<LinkMessage, NotProven> {
        let links = self.handle.link().get().match_index(index).execute();
        tokio::pin!(links);
        links.try_next().await.ok().flatten().ok_or(NotProven::Unknown)
    }

    /// The interface that has the address.
    async fn interface_with(&self, address: IpAddr) -> Result<u32, NotProven> {
        let found = self.handle.address().get().set_address_filter(address).execute();
        tokio::pin!(found);
        let found = found.try_next().await.map_err(|_| NotProven::Unknown)?;
        found
            .map(|message| message.header.index)
            .ok_or(NotProven::NoSuchAddress)
    }

    /// The other end of an interface that is a veth.
    async fn far_end(&self, index: u32) -> Result<FarEnd, NotProven> {
        let link = self.link(index).await?;
        if kind(&link) != Some(&InfoKind::Veth) {
            return Err(NotProven::NotVeth);
        }
        let (mut namespace, mut index) = (None, None);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Link(number) => index = Some(*number),
                LinkAttribute::LinkNetNsId(number) => namespace = Some(*number),
                _ => {}
            }
        }
        // An end in the same namespace has no number.
        match (namespace, index) {
            (Some(namespace @ 0..), Some(index)) => Ok(FarEnd { namespace, index }),
            _ => Err(NotProven::Elsewhere),
        }
    }

    /// The bridge whose port the interface is.
    async fn bridge_of(&self, link: &LinkMessage) -> Result<Option<u32>, NotProven> {
        let controller = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Controller(index) => Some(*index),
            _ => None,
        });
        let Some(index) = controller.filter(|index| *index != 0) else {
            return Ok(None);
        };
        let bridge = self.link(index).await?;
        // A bond, a team, a VRF: somebody else's rules.
        if kind(&bridge) != Some(&InfoKind::Bridge) {
            return Err(NotProven::Unknown);
        }
        if keeps_vlans_apart(&bridge) {
            return Err(NotProven::VlanBridge);
        }
        self.only_pods_on(index).await?;
        Ok(Some(index))
    }

    /// A port that is no veth leads off the node: frames for a neighbour not yet learnt go there too, and somebody behind it
    /// could answer for that neighbour.
    async fn only_pods_on(&self, bridge: u32) -> Result<(), NotProven> {
        let links: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|_| NotProven::Unknown)?;
        let is_port = |link: &&LinkMessage| {
            link.attributes
                .iter()
                .any(|attribute| matches!(attribute, LinkAttribute::Controller(index) if *index == bridge))
        };
        match links
            .iter()
            .filter(is_port)
            .all(|port| kind(port) == Some(&InfoKind::Veth))
        {
            true => Ok(()),
            false => Err(NotProven::Uplink),
        }
    }

    /// By which number the kernel knows `namespace` here (`RTM_GETNSID`); -1 if by none. Interface numbers alone prove
    /// nothing: every namespace has a second one.
    async fn number_of(&self, namespace: &Netns) -> Result<i32, NotProven> {
        let descriptor = u32::try_from(namespace.as_fd().as_raw_fd()).map_err(|_| NotProven::Unknown)?;
        let mut ask = NsidMessage::default();
        ask.attributes.push(NsidAttribute::Fd(descriptor));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(ask));
        request.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle.clone();
        let mut replies = handle.request(request).map_err(|_| NotProven::Unknown)?;
        let Some(reply) = replies.next().await else {
            return Err(NotProven::Unknown);
        };
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(answer)) = reply.payload else {
            return Err(NotProven::Unknown);
        };
        let number = answer.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(number) => Some(*number),
            _ => None,
        });
        // No end of an interface has a negative number, so nothing equals it.
        Ok(number.filter(|number| *number >= 0).unwrap_or(-1))
    }
}

fn infos(link: &LinkMessage) -> impl Iterator<Item = &LinkInfo> {
    link.attributes
        .iter()
        .filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })
        .flatten()
}

fn kind(link: &LinkMessage) -> Option<&InfoKind> {
    infos(link).find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    })
}

fn keeps_vlans_apart(bridge: &LinkMessage) -> bool {
    infos(bridge).any(|info| match info {
        LinkInfo::Data(InfoData::Bridge(settings)) => settings
            .iter()
            .any(|setting| matches!(setting, InfoBridge::VlanFiltering(on) if *on)),
        _ => false,
    })
}
