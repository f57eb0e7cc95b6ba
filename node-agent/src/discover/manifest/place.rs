//! Lines of fields. The parsers say a line only of what they refuse; so a second reading follows the path of the field
//! and refuses the value it leads to.

use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Document, Format, documents};
use crate::discover::ConfigError;

/// Bytes that are read a second time at most; errors beyond have the line of their object.
const MAX_BYTES: usize = 64 << 20;

/// Lists that the core names, and the field that may be written in place of each.
const WRITTEN_ALONE: &[(&str, &str)] = &[
    ("status.podIPs", "status.podIP"),
    ("spec.clusterIPs", "spec.clusterIP"),
];

/// Gives each error the line of its field, where it has only its object's.
pub fn locate<'f>(errors: &mut [ConfigError], file: impl Fn(&str) -> Option<(&'f [u8], Format)>) {
    let mut left = MAX_BYTES;
    // By file, then by the line on which each begins: thousands of errors in one file must not take it apart each.
    let mut files: HashMap<String, HashMap<usize, Document<'f>>> = HashMap::new();
    for error in errors.iter_mut().filter(|error| error.line.is_none()) {
        let (Some(line), Some(mut field)) = (error.object_line, error.field.clone()) else {
            continue;
        };
        error.line = error.object_line;
        let documents = files.entry(error.file.clone()).or_insert_with(|| {
            file(&error.file)
                .and_then(|(bytes, format)| Some((std::str::from_utf8(bytes).ok()?, format)))
                .into_iter()
                .flat_map(|(text, format)| documents(text, "", format))
                .map(|document| (document.first_line(), document))
                .collect()
        });
        let Some(document) = documents.get(&line) else {
            continue;
        };
        let mut spend = || {
            left = left.checked_sub(document.text.len())?;
            Some(())
        };
        if spend().is_none() {
            continue;
        }
        let mut find = |path: &str| spend().and_then(|()| document.line_of(path));
        let mut item = String::new();
        if let Some(index) = document.item_of(error.object.as_deref().unwrap_or_default()) {
            item = format!("items[{index}]");
            error.object_line = find(&item).or(error.object_line);
            item.push('.');
        }
        if let Some((list, alone)) = WRITTEN_ALONE.iter().find(|(list, _)| *list == field)
            && find(&format!("{item}{list}[0]")).is_none()
            && find(&format!("{item}{alone}")).is_some()
        {
            (*alone).clone_into(&mut field);
            error.field = Some(field.clone());
        }
        let mut path = item + &field;
        // A field that is missing is looked for where it should be.
        while !path.is_empty() {
            if let Some(line) = find(&path) {
                error.line = Some(line);
                break;
            }
            path.truncate(path.rfind(['.', '[']).unwrap_or_default());
        }
    }
}

impl Document<'_> {
    /// Line of a field in the file; `None` where it is not written.
    pub(super) fn line_of(&self, path: &str) -> Option<usize> {
        self.pass(Follow { rest: path }).err()?.line
    }

    /// Where in a `List` an object stands.
    fn item_of(&self, object: &str) -> Option<usize> {
        let head = self.pass(super::document::Sniff).ok()?;
        head.items()?
            .iter()
            .rposition(|item| item.label().as_deref() == Some(object))
    }
}

/// Reads a value of which `rest` is the path ahead, and fails at its end.
#[derive(Clone, Copy)]
struct Follow<'p> {
    rest: &'p str,
}

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.rest.is_empty() {
            deserializer.deserialize_any(Here)
        } else if self.rest.starts_with('[') {
            deserializer.deserialize_seq(self)
        } else {
            deserializer.deserialize_map(self)
        }
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "something at {}", self.rest)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Keys may hold dots themselves (`metadata.annotations.istio.io/dry-run`): those that are written decide how
        // the path is to be read.
        while let Some(ahead) = map.next_key_seed(KeyOnPath { rest: self.rest })? {
            match ahead {
                Some(rest) => map.next_value_seed(Follow { rest })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let wanted = self.rest.strip_prefix('[').and_then(|rest| {
            let (index, rest) = rest.split_once(']')?;
            Some((
                index.parse::<usize>().ok()?,
                rest.strip_prefix('.').unwrap_or(rest),
            ))
        });
        let mut index = 0;
        loop {
            let more = match wanted {
                Some((at, rest)) if at == index => seq.next_element_seed(Follow { rest })?.is_some(),
                _ => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
}

/// Every value is one too many.
struct Here;

impl Visitor<'_> for Here {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }
}

/// What is left of the path behind a key that lies on it; fails at the key that ends it.
struct KeyOnPath<'p> {
    rest: &'p str,
}

impl<'de, 'p> DeserializeSeed<'de> for KeyOnPath<'p> {
    type Value = Option<&'p str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'p> Visitor<'_> for KeyOnPath<'p> {
    type Value = Option<&'p str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        match self.rest.strip_prefix(key) {
            Some("") => Err(E::custom("here")),
            Some(rest) if rest.starts_with('[') => Ok(Some(rest)),
            Some(rest) => Ok(rest.strip_prefix('.')),
            None => Ok(None),
        }
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<Self::Value, E> {
        self.visit_str(&key.to_string())
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<Self::Value, E> {
        self.visit_str(&key.to_string())
    }
}

#[cfg(test)]
mod tests;
