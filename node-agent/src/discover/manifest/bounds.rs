//! The pass before all others: counts what a document unfolds to and keeps nothing.
//!
//! YAML aliases let a kilobyte stand for gigabytes; counting them as they are followed bounds every later pass.
//! Merge keys and repeated keys are refused here because typed reading would drop them without a word.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::MAX_FILE_BYTES;

/// How many values one file may hold, aliases followed; a pod as the API server writes it has about 250.
const MAX_NODES: usize = 500_000;
/// How deep values may nest; the deepest field that is read lies at ten.
pub(super) const MAX_DEPTH: usize = 48;
/// How many bytes of text one file may hold, aliases followed: an alias of a long text is a copy of it.
const MAX_TEXT: usize = MAX_FILE_BYTES << 3;
/// What is said of a document whose aliases are a way to write something huge.
pub(super) const UNFOLDS: &str = "its aliases (`&`, `*`) unfold to far more than is written; write it out";

/// What is left of a file's allowance.
pub(super) struct Budget {
    nodes: usize,
    text: usize,
    /// What the scanner of YAML was given to clear, of which [`super::effort`] keeps account.
    pub(super) cleared: usize,
    /// What this pass has refused, as opposed to what the parser could not read.
    refused: Option<Refused>,
}

/// Why a document is not read on.
pub(super) struct Refused {
    pub(super) problem: String,
    /// Whether it is about the field at which reading stopped, not the document.
    pub(super) of_field: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            nodes: MAX_NODES,
            text: MAX_TEXT,
            cleared: 0,
            refused: None,
        }
    }
}

impl Budget {
    /// What was refused since the last look.
    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        self.refused.take()
    }

    /// Whether the file may be read on at all.
    pub(super) fn is_spent(&self) -> bool {
        self.nodes == 0 || self.text == 0
    }

    fn refuse<E: Error>(&mut self, of_field: bool, problem: impl Into<String>) -> E {
        let problem = problem.into();
        self.refused = Some(Refused { problem, of_field });
        E::custom("refused")
    }
}

/// What is said of a document that nests deeper than anything that is read.
pub(super) fn too_deep() -> String {
    format!("values nest deeper than {MAX_DEPTH}")
}

impl<'de> DeserializeSeed<'de> for &mut Budget {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(Walk {
            budget: self,
            depth: 0,
        })
    }
}

struct Walk<'a> {
    budget: &'a mut Budget,
    depth: usize,
}

impl Walk<'_> {
    fn count<E: Error>(&mut self) -> Result<(), E> {
        match self.budget.nodes.checked_sub(1) {
            Some(left) => {
                self.budget.nodes = left;
                Ok(())
            }
            None => Err(self
                .budget
                .refuse(false, format!("the file holds more than {MAX_NODES} values"))),
        }
    }

    fn count_text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        self.budget.text = self.budget.text.saturating_sub(text.len());
        if self.budget.text == 0 {
            return Err(self.budget.refuse(false, UNFOLDS));
        }
        Ok(())
    }

    fn deeper<E: Error>(&mut self) -> Result<Walk<'_>, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.budget.refuse(false, too_deep()));
        }
        Ok(Walk {
            budget: self.budget,
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value without tags")
    }

    fn visit_bool<E: Error>(mut self, _: bool) -> Result<(), E> {
        self.count()
    }

    fn visit_i64<E: Error>(mut self, _: i64) -> Result<(), E> {
        self.count()
    }

    fn visit_u64<E: Error>(mut self, _: u64) -> Result<(), E> {
        self.count()
    }

    fn visit_f64<E: Error>(mut self, _: f64) -> Result<(), E> {
        self.count()
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.count_text(text)?;
        self.count()
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.count()
    }

    fn visit_none<E: Error>(mut self) -> Result<(), E> {
        self.count()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.count()?;
        while seq.next_element_seed(self.deeper()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.count()?;
        let mut seen = HashSet::new();
        while map
            .next_key_seed(NewKey {
                budget: self.budget,
                seen: &mut seen,
            })?
            .is_some()
        {
            map.next_value_seed(self.deeper()?)?;
        }
        Ok(())
    }
}

/// One key of a map. What is wrong with it is said while it is read, so that the parser's place is its own.
struct NewKey<'a> {
    budget: &'a mut Budget,
    seen: &'a mut HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for NewKey<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for NewKey<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or number as key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if key == "<<" {
            let problem = "merge keys are not read; write the fields out";
            return Err(self.budget.refuse(true, problem));
        }
        if !self.seen.insert(key.to_owned()) {
            return Err(self.budget.refuse(true, "is given twice"));
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, key: u64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }

    fn visit_i64<E: Error>(self, key: i64) -> Result<(), E> {
        self.visit_str(&key.to_string())
    }
}

/// A key as text: YAML writes `8080:` where JSON writes `"8080":`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(pub(super) String);

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or number as key")
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
                Ok(Key(key.into()))
            }

            fn visit_u64<E: Error>(self, key: u64) -> Result<Key, E> {
                Ok(Key(key.to_string()))
            }

            fn visit_i64<E: Error>(self, key: i64) -> Result<Key, E> {
                Ok(Key(key.to_string()))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}
