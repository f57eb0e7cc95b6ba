//! From the bytes of one file to objects of the core: syntax, types and fields; no IO.
//!
//! Of core kinds only the fields that matter are read and the many others are left alone; where a value would mean
//! something the mesh does not do (`ExternalName`), it is refused. Of policies every field has to
//! be known: one that is skipped may be the one that shuts the door.

mod bounds;
mod document;
mod meta;
mod peer_authentication;
mod pod;
mod policy;
mod service;

use std::sync::Arc;

use serde::de::DeserializeSeed;
use tramline_core::object::{Kind, ObjectError, Objects};

use self::document::{DocumentSeed, Head, Item, Sniff};
use super::ConfigError;

/// The longest file that is read.
pub const MAX_FILE_BYTES: usize = 8 << 20;

/// How a file is written, by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One or more YAML documents.
    Yaml,
    /// One JSON document.
    Json,
}

impl Format {
    /// The format of a file name; `None` for files that are not read.
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Reads one file into `objects`; what is wrong goes to `errors`, one per document at least, and what could be read
/// is kept so that later checks find more.
pub fn parse(bytes: &[u8], file: &str, format: Format, objects: &mut Objects, errors: &mut Vec<ConfigError>) {
    if bytes.len() > MAX_FILE_BYTES {
        errors.push(ConfigError::at(
            file,
            format!("is larger than {} MiB", MAX_FILE_BYTES >> 20),
        ));
        return;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        errors.push(ConfigError::at(file, "is not UTF-8"));
        return;
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut nodes = bounds::Budget::default();
    match format {
        Format::Json => Document {
            text,
            line: 1,
            file,
            format,
        }
        .read(&mut nodes, objects, errors),
        Format::Yaml => {
            for (line, text) in split(text) {
                Document {
                    text,
                    line,
                    file,
                    format,
                }
                .read(&mut nodes, objects, errors);
            }
        }
    }
}

/// The documents of a YAML file with the line on which each begins. `---` at the start of a line ends a document
/// wherever it stands, inside scalars too (YAML 1.2, section 9.1.2), so no parser is needed to find it.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if marker {
            documents.push((start_line, text.get(start..offset).unwrap_or_default()));
            (start, start_line) = (offset, index + 1);
        }
        offset += line.len();
    }
    documents.push((start_line, text.get(start..).unwrap_or_default()));
    documents.retain(|(_, document)| !is_blank(document));
    documents
}

fn is_blank(document: &str) -> bool {
    document.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with('#')
    })
}

struct Document<'a> {
    text: &'a str,
    line: usize,
    file: &'a str,
    format: Format,
}

impl Document<'_> {
    fn read(&self, nodes: &mut bounds::Budget, objects: &mut Objects, errors: &mut Vec<ConfigError>) {
        // Three passes over the same text: bounds first, since everything after it trusts them; then the kinds, which
        // say how to read; then the objects. Each keeps the parser's own line and field path for its errors.
        let sniffed = self.pass(nodes, None).and_then(|()| self.pass(Sniff, None));
        let head = match sniffed {
            Ok(head) => head,
            Err(error) => return errors.push(error),
        };
        let kinds = match head.kinds() {
            Ok(kinds) => kinds,
            Err((head, problem)) => {
                let place = format!("{}:{}", self.file, self.first_line());
                let error = ConfigError {
                    object: head.label(),
                    ..ConfigError::at(place, problem)
                };
                return errors.push(error);
            }
        };
        let seed = DocumentSeed {
            kinds: &kinds,
            list: head.is_list(),
        };
        let items = match self.pass(seed, head.label()) {
            Ok(items) => items,
            Err(error) => return errors.push(error),
        };
        let origin: Arc<str> = format!("{}:{}", self.file, self.first_line()).into();
        let mut problems = Vec::new();
        for item in items {
            add(item, &origin, objects, &mut problems);
        }
        errors.extend(problems.into_iter().map(ConfigError::from));
    }

    fn pass<'a, S: DeserializeSeed<'a>>(
        &'a self,
        seed: S,
        object: Option<String>,
    ) -> Result<S::Value, ConfigError> {
        let (line, message) = match self.format {
            Format::Yaml => match seed.deserialize(serde_norway::Deserializer::from_str(self.text)) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    let location = error.location();
                    let mut message = error.to_string();
                    if let Some(at) = location.as_ref().and_then(|_| message.rfind(" at line ")) {
                        message.truncate(at);
                    }
                    (location.map(|location| location.line()), message)
                }
            },
            Format::Json => {
                let mut json = serde_json::Deserializer::from_str(self.text);
                match seed
                    .deserialize(&mut json)
                    .and_then(|value| json.end().map(|()| value))
                {
                    Ok(value) => return Ok(value),
                    Err(error) => {
                        let mut message = error.to_string();
                        if let Some(at) = message.rfind(" at line ") {
                            message.truncate(at);
                        }
                        (Some(error.line()), message)
                    }
                }
            }
        };
        let line = line.map_or(self.first_line(), |line| self.line + line.max(1) - 1);
        Err(ConfigError {
            object,
            ..ConfigError::at(format!("{}:{line}", self.file), message)
        })
    }

    /// The first line with anything on it, which is where an editor should go.
    fn first_line(&self) -> usize {
        let blank = |line: &&str| is_blank(line);
        self.line + self.text.lines().take_while(blank).count()
    }
}

fn add(item: Item, origin: &Arc<str>, objects: &mut Objects, errors: &mut Vec<ObjectError>) {
    match item {
        Item::Namespace(manifest) => objects.namespaces.extend(manifest.into_namespace(origin, errors)),
        Item::Node(manifest) => objects.nodes.extend(manifest.into_node(origin, errors)),
        Item::ServiceAccount(manifest) => {
            objects
                .service_accounts
                .extend(manifest.into_service_account(origin, errors));
        }
        Item::Pod(manifest) => objects.pods.extend(manifest.into_pod(origin, errors)),
        Item::Service(manifest) => objects.services.extend(manifest.into_service(origin, errors)),
        Item::EndpointSlice(manifest) => objects
            .endpoint_slices
            .extend(manifest.into_slice(origin, errors)),
        Item::PeerAuthentication(manifest) => {
            objects
                .peer_authentications
                .extend(manifest.into_policy(origin, errors));
        }
        Item::AuthorizationPolicy(manifest) => {
            objects
                .authorization_policies
                .extend(manifest.into_policy(origin, errors));
        }
    }
}

/// The kinds that are read, with their API versions.
const KINDS: &[(&str, &str, Kind)] = &[
    ("v1", "Namespace", Kind::Namespace),
    ("v1", "Node", Kind::Node),
    ("v1", "Pod", Kind::Pod),
    ("v1", "Service", Kind::Service),
    ("v1", "ServiceAccount", Kind::ServiceAccount),
    ("discovery.k8s.io/v1", "EndpointSlice", Kind::EndpointSlice),
    (
        "security.istio.io/v1",
        "PeerAuthentication",
        Kind::PeerAuthentication,
    ),
    (
        "security.istio.io/v1beta1",
        "PeerAuthentication",
        Kind::PeerAuthentication,
    ),
    (
        "security.istio.io/v1",
        "AuthorizationPolicy",
        Kind::AuthorizationPolicy,
    ),
    (
        "security.istio.io/v1beta1",
        "AuthorizationPolicy",
        Kind::AuthorizationPolicy,
    ),
];

/// The kind of a document head, or why there is none.
fn kind_of(head: &Head) -> Result<Kind, String> {
    let (Some(api), Some(kind)) = (&head.api_version, &head.kind) else {
        return Err("apiVersion and kind are required".into());
    };
    if let Some((.., found)) = KINDS.iter().find(|(a, k, _)| a == api && k == kind) {
        return Ok(*found);
    }
    match KINDS.iter().find(|(_, k, _)| k == kind) {
        Some((right, ..)) => Err(format!(
            "apiVersion `{api}` of {kind} is not read; write `{right}`"
        )),
        None => {
            let mut known: Vec<&str> = KINDS.iter().map(|(_, kind, _)| *kind).collect();
            known.dedup();
            Err(format!(
                "kind {kind} ({api}) is not read; the kinds that are: {}",
                known.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests;
