//! Fields of core kinds that are almost one that is read.
//!
//! These kinds have many fields that mean nothing to the mesh, and get more with every release of Kubernetes, so that what is
//! unknown is left alone. But `serviceaccountName: bill` is somebody's mistake, and a pod would speak as `default`: a
//! field that comes close to one that is read, and is none that Kubernetes has there, is refused.

use std::fmt;
use std::sync::LazyLock;

use serde::de::value::Error as Refusal;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use tramline_core::object::Kind;

use super::meta::{NAMED, SERVICE_ACCOUNT};
use super::pod::POD;
use super::service::{ENDPOINT_SLICE, SERVICE};
use super::suggest;

/// What an object, or a part of one, may hold. A list holds what its items do.
pub(super) struct Level {
    /// The fields that are read here.
    read: LazyLock<&'static [&'static str]>,
    /// Those of Kubernetes' other fields here that come close to one of them.
    real: &'static [&'static str],
    /// Those that have fields of their own.
    below: &'static [(&'static str, &'static Level)],
}

static LIST: Level = Level {
    read: LazyLock::new(|| &["apiVersion", "kind", "items"]),
    real: &[],
    below: &[],
};

impl Level {
    /// The level of a struct's fields.
    pub(super) const fn new<T: DeserializeOwned>(below: &'static [(&'static str, &'static Level)]) -> Self {
        Self::among::<T>(&[], below)
    }

    /// The same beside these other fields that Kubernetes has.
    pub(super) const fn among<T: DeserializeOwned>(
        real: &'static [&'static str],
        below: &'static [(&'static str, &'static Level)],
    ) -> Self {
        Self {
            read: LazyLock::new(fields_of::<T>),
            real,
            below,
        }
    }

    /// Of a kind; `None` where all unknown fields are refused anyway.
    fn of(kind: Kind) -> Option<&'static Self> {
        match kind {
            Kind::Namespace | Kind::Node => Some(&NAMED),
            Kind::ServiceAccount => Some(&SERVICE_ACCOUNT),
            Kind::Pod => Some(&POD),
            Kind::Service => Some(&SERVICE),
            Kind::EndpointSlice => Some(&ENDPOINT_SLICE),
            Kind::PeerAuthentication | Kind::AuthorizationPolicy => None,
        }
    }

    fn meant_by(&self, key: &str) -> Option<&'static str> {
        if self.read.contains(&key) || self.real.contains(&key) {
            return None;
        }
        suggest::near(key, &self.read)
    }
}

/// The names under which serde reads a struct's fields: what is said here can then not differ from what is read.
fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    // It has nothing to read from, and says so once it was asked.
    let _: Result<T, Refusal> = T::deserialize(Asked(&mut fields));
    fields
}

struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::custom("nothing to read from"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Reads a document whose kinds are known, and fails at the first field that is almost another.
pub(super) struct Misspelt<'a> {
    pub(super) kinds: &'a [Kind],
    pub(super) list: bool,
}

impl Misspelt<'_> {
    /// Whether there is anything to look at.
    pub(super) fn is_needed(&self) -> bool {
        self.list || self.kinds.iter().any(|kind| Level::of(*kind).is_some())
    }
}

impl<'de> DeserializeSeed<'de> for Misspelt<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let walk = match self.kinds {
            _ if self.list => Walk::List(self.kinds),
            [kind] => Walk::of(*kind),
            _ => Walk::Past,
        };
        walk.deserialize(deserializer)
    }
}

/// What the value ahead is.
#[derive(Clone, Copy)]
enum Walk<'a> {
    /// Nothing that is looked at.
    Past,
    /// Something with these fields, or a list of such.
    Level(&'static Level),
    /// A `List` of objects of these kinds.
    List(&'a [Kind]),
    /// Its items.
    Items(&'a [Kind]),
}

impl Walk<'_> {
    fn of(kind: Kind) -> Self {
        Level::of(kind).map_or(Self::Past, Self::Level)
    }

    fn level(&self) -> Option<&'static Level> {
        match self {
            Self::Level(level) => Some(level),
            Self::List(_) => Some(&LIST),
            Self::Past | Self::Items(_) => None,
        }
    }

    /// What a field of this holds.
    fn below(self, key: &str) -> Self {
        match self {
            Self::List(kinds) if key == "items" => Self::Items(kinds),
            Self::Level(level) => level
                .below
                .iter()
                .find_map(|(name, below)| (*name == key).then_some(Self::Level(below)))
                .unwrap_or(Self::Past),
            _ => Self::Past,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Self::Past => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

/// A value of another shape is for whoever reads it to refuse.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self::Items(kinds) = self else {
            while seq.next_element_seed(self)?.is_some() {}
            return Ok(());
        };
        let mut kinds = kinds.iter();
        loop {
            let item = kinds.next().map_or(Walk::Past, |kind| Walk::of(*kind));
            if seq.next_element_seed(item)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(below) = map.next_key_seed(Key(self))? {
            map.next_value_seed(below)?;
        }
        Ok(())
    }
}

/// A key, read as what its value is; refused while it is read, so that the parser's place is its own.
struct Key<'a>(Walk<'a>);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Walk<'a>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Walk<'a>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Walk<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or number as key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Walk<'a>, E> {
        match self.0.level().and_then(|level| level.meant_by(key)) {
            // In serde's words, so that it is said as of any other unknown field.
            Some(meant) => Err(E::custom(format_args!(
                "unknown field `{key}`, expected `{meant}`"
            ))),
            None => Ok(self.0.below(key)),
        }
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Walk<'a>, E> {
        Ok(Walk::Past)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Walk<'a>, E> {
        Ok(Walk::Past)
    }
}

#[cfg(test)]
mod tests;
