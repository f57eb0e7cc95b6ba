//! What a document is: one object, or a `List` of them.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use tramline_core::object::Kind;

use super::meta::{NamespaceManifest, NodeManifest, ServiceAccountManifest};
use super::peer_authentication::PeerAuthenticationManifest;
use super::pod::PodManifest;
use super::policy::AuthorizationPolicyManifest;
use super::service::{EndpointSliceManifest, ServiceManifest};

/// A field, and what is wrong with it.
pub(super) type Wrong = (&'static str, String);

/// The fields that say how to read the others.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    #[serde(rename = "apiVersion")]
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    #[serde(default)]
    metadata: Option<HeadMeta>,
    #[serde(default)]
    items: Option<Vec<Head>>,
}

#[derive(Debug, Deserialize)]
struct HeadMeta {
    name: Option<String>,
    namespace: Option<String>,
}

impl Head {
    pub(super) fn is_list(&self) -> bool {
        match self.kind.as_deref() {
            Some("List") => self.api_version.as_deref() == Some("v1"),
            // What the API itself answers with: PodList, ServiceList, AuthorizationPolicyList.
            Some(kind) => kind.ends_with("List") && self.items.is_some(),
            None => false,
        }
    }

    /// The API server leaves out of the items of a `PodList` what the list says of all of them.
    fn name_items(&mut self) {
        let of_items = self.kind.as_deref().and_then(|kind| kind.strip_suffix("List"));
        let Some(kind) = of_items.filter(|kind| !kind.is_empty()).map(str::to_owned) else {
            return;
        };
        for item in self.items.iter_mut().flatten() {
            item.kind.get_or_insert_with(|| kind.clone());
            if item.api_version.is_none() {
                item.api_version.clone_from(&self.api_version);
            }
        }
    }

    /// The objects of a `List`.
    pub(super) fn items(&self) -> Option<&[Head]> {
        self.items.as_deref().filter(|_| self.is_list())
    }

    /// The kinds of the objects within, in order; or which of a `List` has none that is read, and what is wrong.
    pub(super) fn kinds(&self) -> Result<Vec<Kind>, (Option<usize>, Wrong)> {
        if !self.is_list() {
            return super::kind_of(self)
                .map(|kind| vec![kind])
                .map_err(|wrong| (None, wrong));
        }
        let items = self.items().unwrap_or_default().iter().enumerate();
        items
            .map(|(index, head)| super::kind_of(head).map_err(|wrong| (Some(index), wrong)))
            .collect()
    }

    /// `KIND NAMESPACE/NAME`, as far as it is known; as the object itself is called later.
    pub(super) fn label(&self) -> Option<String> {
        let kind = self.kind.as_deref()?;
        let name = self
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.name.as_deref());
        let namespace = self
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.namespace.as_deref());
        Some(match (kind, namespace, name) {
            (_, _, None) => kind.into(),
            ("Namespace" | "Node", _, Some(name)) => format!("{kind} {name}"),
            (_, namespace, Some(name)) => format!("{kind} {}/{name}", namespace.unwrap_or("default")),
        })
    }
}

/// Reads the [`Head`].
pub(super) struct Sniff;

impl<'de> DeserializeSeed<'de> for Sniff {
    type Value = Head;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head, D::Error> {
        let mut head = Head::deserialize(deserializer)?;
        head.name_items();
        Ok(head)
    }
}

/// One object, typed.
pub(super) enum Item {
    Namespace(NamespaceManifest),
    Node(NodeManifest),
    ServiceAccount(ServiceAccountManifest),
    Pod(Box<PodManifest>),
    Service(Box<ServiceManifest>),
    EndpointSlice(EndpointSliceManifest),
    PeerAuthentication(PeerAuthenticationManifest),
    AuthorizationPolicy(Box<AuthorizationPolicyManifest>),
}

/// Reads a document whose kinds are known.
pub(super) struct DocumentSeed<'a> {
    pub(super) kinds: &'a [Kind],
    pub(super) list: bool,
}

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Item>, D::Error> {
        match (self.list, self.kinds) {
            (false, [kind]) => ItemSeed(*kind).deserialize(deserializer).map(|item| vec![item]),
            _ => deserializer.deserialize_map(ListVisitor(self.kinds)),
        }
    }
}

struct ItemSeed(Kind);

impl<'de> DeserializeSeed<'de> for ItemSeed {
    type Value = Item;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Item, D::Error> {
        Ok(match self.0 {
            Kind::Namespace => Item::Namespace(Deserialize::deserialize(deserializer)?),
            Kind::Node => Item::Node(Deserialize::deserialize(deserializer)?),
            Kind::ServiceAccount => Item::ServiceAccount(Deserialize::deserialize(deserializer)?),
            Kind::Pod => Item::Pod(Deserialize::deserialize(deserializer)?),
            Kind::Service => Item::Service(Deserialize::deserialize(deserializer)?),
            Kind::EndpointSlice => Item::EndpointSlice(Deserialize::deserialize(deserializer)?),
            Kind::PeerAuthentication => Item::PeerAuthentication(Deserialize::deserialize(deserializer)?),
            Kind::AuthorizationPolicy => Item::AuthorizationPolicy(Deserialize::deserialize(deserializer)?),
        })
    }
}

struct ListVisitor<'a>(&'a [Kind]);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a List with items")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                items = map.next_value_seed(ItemsSeed(self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(items)
    }
}

struct ItemsSeed<'a>(&'a [Kind]);

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Item>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::with_capacity(self.0.len());
        for kind in self.0 {
            let item = seq.next_element_seed(ItemSeed(*kind))?;
            items.push(item.ok_or_else(|| A::Error::custom("the list ends early"))?);
        }
        Ok(items)
    }
}
