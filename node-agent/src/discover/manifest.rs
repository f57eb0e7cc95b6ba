//! From the bytes of one file to objects of the core: syntax, types and fields; no IO.
//!
//! Of core kinds only the fields that matter are read and the many others are left alone, unless they are almost one that
//! matters; where a value would mean
//! something the mesh does not do (`ExternalName`), it is refused. Of policies every field has to
//! be known: one that is skipped may be the one that shuts the door.

mod bounds;
mod document;
mod effort;
mod enrolment;
mod given;
mod lines;
mod meta;
mod misspelt;
mod peer_authentication;
mod place;
mod pod;
mod policy;
mod port;
pub mod print;
mod service;
mod shape;
mod suggest;

use std::sync::Arc;

use serde::de::DeserializeSeed;
use tramline_core::object::{Kind, ObjectError, ObjectRef, Objects};

use self::bounds::Refused;
use self::document::{DocumentSeed, Head, Item, Sniff, Wrong};
use self::effort::TooMuch;
use self::misspelt::Misspelt;
pub use self::place::locate;
use super::{ConfigError, ConfigErrors};

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

/// The objects of one file, on its own.
///
/// # Errors
/// Everything that is wrong with it.
pub fn read(bytes: &[u8], file: &str, format: Format) -> Result<Objects, ConfigErrors> {
    let (mut objects, mut errors) = (Objects::default(), Vec::new());
    parse(bytes, file, format, &mut objects, &mut errors);
    if errors.is_empty() {
        return Ok(objects);
    }
    locate(&mut errors, |_| Some((bytes, format)));
    Err(ConfigErrors::new(errors))
}

/// Reads one file into `objects`; what is wrong goes to `errors`, one per document at least, and what could be read
/// is kept so that later checks find more. [`locate`] finds the lines of the fields when all errors are known.
pub fn parse(bytes: &[u8], file: &str, format: Format, objects: &mut Objects, errors: &mut Vec<ConfigError>) {
    if bytes.len() > MAX_FILE_BYTES {
        errors.push(ConfigError::at(file, too_long()));
        return;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let good = std::str::from_utf8(good).unwrap_or_default();
            // With something behind it, so that an end of a line has a next one.
            let line = lines_of(&format!("{good}?"), format).count();
            let problem = "is not UTF-8: save it as UTF-8";
            errors.push(ConfigError {
                line: Some(line),
                ..ConfigError::at(file, problem)
            });
            return;
        }
    };
    let mut nodes = bounds::Budget::default();
    for document in documents(text, file, format) {
        document.read(&mut nodes, objects, errors);
    }
}

/// What is said of a file that is longer than [`MAX_FILE_BYTES`].
pub(super) fn too_long() -> String {
    format!(
        "is larger than {} MiB; split it into several files",
        MAX_FILE_BYTES >> 20
    )
}

/// The documents of a file.
fn documents<'a>(text: &'a str, file: &'a str, format: Format) -> impl Iterator<Item = Document<'a>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let documents = match format {
        Format::Json => vec![(1, text)],
        Format::Yaml => split(text),
    };
    documents.into_iter().map(move |(line, text)| Document {
        text,
        line,
        file,
        format,
    })
}

/// The documents of a YAML file with the line on which each begins. `---` at the start of a line ends a document
/// wherever it stands, inside scalars too (YAML 1.2, section 9.1.2), so no parser is needed to find it.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut offset) = (0, 1, 0);
    for (index, line) in lines::lines(text).enumerate() {
        let marker = line.strip_prefix("---").is_some_and(|rest| {
            rest.is_empty() || rest.starts_with([' ', '\t']) || lines::begins_with_break(rest.as_bytes())
        });
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
    lines::lines(document).all(is_blank_line)
}

fn is_blank_line(line: &str) -> bool {
    let line = line.strip_prefix("---").unwrap_or(line).trim();
    line.is_empty() || line.starts_with('#')
}

/// The lines as the format's parser counts them.
fn lines_of(text: &str, format: Format) -> Box<dyn Iterator<Item = &str> + '_> {
    match format {
        Format::Yaml => Box::new(lines::lines(text)),
        Format::Json => Box::new(text.lines()),
    }
}

struct Document<'a> {
    text: &'a str,
    line: usize,
    file: &'a str,
    format: Format,
}

/// Where reading stopped, and why.
struct Flaw {
    line: Option<usize>,
    /// Path of the field at which it stopped.
    path: String,
    message: String,
}

impl Document<'_> {
    fn read(&self, nodes: &mut bounds::Budget, objects: &mut Objects, errors: &mut Vec<ConfigError>) {
        if self.format == Format::Yaml
            && let Err(TooMuch { line, problem }) = effort::check(self.text, &mut nodes.cleared)
        {
            return errors.push(ConfigError {
                line: Some(self.line + line),
                ..ConfigError::at(self.file, problem)
            });
        }
        // Passes over the same text: bounds first, since everything after it trusts them; then the kinds, which say how to
        // read; then what is misspelt, and the objects.
        if let Err(flaw) = self.pass(&mut *nodes) {
            let Some(Refused { problem, of_field }) = nodes.take_refused() else {
                return errors.push(self.unreadable(&flaw));
            };
            let head = (!nodes.is_spent()).then(|| self.pass(Sniff).ok()).flatten();
            let error = self.refused(head.as_ref(), flaw, |path| {
                (of_field.then(|| path.to_owned()), problem)
            });
            return errors.push(error);
        }
        let by_shape = |mut flaw: Flaw, head: Option<&Head>| {
            let message = flaw.message.clone();
            // Of null the parser says where the object around it begins.
            if message == given::IS_NULL {
                flaw.line = self.line_of(flaw.path.trim_matches('.')).or(flaw.line);
            }
            self.refused(head, flaw, |path| shape::problem(path, &message))
        };
        let head = match self.pass(Sniff) {
            Ok(head) => head,
            Err(flaw) => return errors.push(by_shape(flaw, None)),
        };
        let kinds = match head.kinds() {
            Ok(kinds) => kinds,
            Err((index, (field, problem))) => {
                let path = match index {
                    Some(index) => format!("items[{index}].{field}"),
                    None => field.to_owned(),
                };
                let flaw = Flaw {
                    line: self.line_of(&path),
                    path,
                    message: String::new(),
                };
                return errors.push(self.refused(Some(&head), flaw, |path| (Some(path.to_owned()), problem)));
            }
        };
        let misspelt = Misspelt {
            kinds: &kinds,
            list: head.is_list(),
        };
        // Before the objects, which would lack what is misspelt.
        if misspelt.is_needed()
            && let Err(flaw) = self.pass(misspelt)
        {
            return errors.push(by_shape(flaw, Some(&head)));
        }
        let seed = DocumentSeed {
            kinds: &kinds,
            list: head.is_list(),
        };
        let items = match self.pass(seed) {
            Ok(items) => items,
            Err(flaw) => return errors.push(by_shape(flaw, Some(&head))),
        };
        let origin: Arc<str> = format!("{}:{}", self.file, self.first_line()).into();
        let mut problems = Vec::new();
        for item in items {
            add(item, &origin, objects, &mut problems);
        }
        errors.extend(problems.into_iter().map(ConfigError::from));
    }

    /// What the parser could not make sense of.
    fn unreadable(&self, flaw: &Flaw) -> ConfigError {
        let language = match self.format {
            Format::Yaml => "YAML",
            Format::Json => "JSON",
        };
        // Where the parser names a second place, it counts from the beginning of the document.
        let what = flaw.message.split(" at line ").next().unwrap_or_default();
        let problem = match what {
            "repetition limit exceeded" => bounds::UNFOLDS.to_owned(),
            what => format!("is not valid {language}: {what}"),
        };
        ConfigError {
            line: flaw.line.or_else(|| Some(self.first_line())),
            ..ConfigError::at(self.file, problem)
        }
    }

    /// The error about a flaw: which object, and, from the path within it, which field and what is wrong.
    fn refused(
        &self,
        head: Option<&Head>,
        flaw: Flaw,
        say: impl FnOnce(&str) -> (Option<String>, String),
    ) -> ConfigError {
        let path = flaw.path.trim_matches('.');
        let (mut object, mut object_line) = (head.and_then(Head::label), Some(self.first_line()));
        let mut inner = path;
        if let Some((item, index, rest)) = head.filter(|head| head.is_list()).and_then(|_| in_item(path)) {
            object = head.and_then(|head| head.items()?.get(index)?.label());
            object_line = self.line_of(item).or(object_line);
            // What has no kind is named by its place.
            if object.is_some() {
                inner = rest;
            }
        }
        let (field, problem) = say(inner);
        ConfigError {
            line: flaw.line.or(object_line),
            object_line: object_line.filter(|_| object.is_some()),
            object,
            field: field.filter(|field| !field.is_empty()),
            ..ConfigError::at(self.file, problem)
        }
    }

    fn pass<'a, S: DeserializeSeed<'a>>(&'a self, seed: S) -> Result<S::Value, Flaw> {
        let mut track = serde_path_to_error::Track::new();
        let (line, error_text) = match self.format {
            Format::Yaml => {
                let yaml = serde_norway::Deserializer::from_str(self.text);
                match seed.deserialize(serde_path_to_error::Deserializer::new(yaml, &mut track)) {
                    Ok(value) => return Ok(value),
                    Err(error) => (
                        error.location().map(|at| self.line + at.line().max(1) - 1),
                        error.to_string(),
                    ),
                }
            }
            Format::Json => {
                let mut json = serde_json::Deserializer::from_str(self.text);
                let read = seed.deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track));
                match read.and_then(|value| json.end().map(|()| value)) {
                    Ok(value) => return Ok(value),
                    Err(error) => (Some(self.line + error.line().max(1) - 1), error.to_string()),
                }
            }
        };
        let path = track.path().to_string();
        let message = without_place(&error_text, &path).to_owned();
        Err(Flaw { line, path, message })
    }

    /// The first line with anything on it, which is where an editor should go.
    fn first_line(&self) -> usize {
        let blank = |line: &&str| is_blank_line(line);
        self.line + lines_of(self.text, self.format).take_while(blank).count()
    }
}

/// What is wrong, without the place: both parsers put the line behind it, counted from the beginning of the document, and
/// the one for YAML a path before it, which may end above the field.
fn without_place<'m>(message: &'m str, path: &str) -> &'m str {
    let place = |text: &str| text.chars().all(|c| c.is_ascii_digit() || " column".contains(c));
    let message = match message.rsplit_once(" at line ") {
        Some((what, at)) if place(at) => what,
        _ => message,
    };
    let mut path = path;
    while !path.is_empty() {
        let rest = message
            .strip_prefix(path)
            .and_then(|rest| rest.strip_prefix(": "));
        if let Some(rest) = rest {
            return rest;
        }
        path = path
            .get(..path.rfind(['.', '[']).unwrap_or_default())
            .unwrap_or_default();
    }
    message
}

/// The item of a `List` in which a path lies: its own path, its index, and what is left of the path within it.
fn in_item(path: &str) -> Option<(&str, usize, &str)> {
    let (index, rest) = path.strip_prefix("items[")?.split_once(']')?;
    let item = path.get(..path.len() - rest.len())?;
    Some((item, index.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
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

/// Refuses a text that is none of those that Kubernetes has: what is decided by one of them would go the other way without a word.
fn one_of(
    text: Option<&str>,
    known: &[&str],
    field: &str,
    object: &ObjectRef,
    errors: &mut Vec<ObjectError>,
) {
    if let Some(text) = text.filter(|text| !known.contains(text)) {
        let problem = format!("`{text}` is none of {}", known.join(", "));
        errors.push(ObjectError::new(object, field, problem));
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

/// The kind of a document head, or which field is wrong and why.
fn kind_of(head: &Head) -> Result<Kind, Wrong> {
    let Some(kind) = &head.kind else {
        return Err(("kind", "is required".into()));
    };
    let Some(api) = &head.api_version else {
        return Err(("apiVersion", "is required".into()));
    };
    if let Some((.., found)) = KINDS.iter().find(|(a, k, _)| a == api && k == kind) {
        return Ok(*found);
    }
    match KINDS.iter().find(|(_, k, _)| k == kind) {
        Some((right, ..)) => Err((
            "apiVersion",
            format!("`{api}` of {kind} is not read; write `{right}`"),
        )),
        None => {
            let mut known: Vec<&str> = KINDS.iter().map(|(_, kind, _)| *kind).collect();
            known.dedup();
            let what = format!("`{kind}` of {api} is not read");
            Err(("kind", suggest::not_one_of(&what, kind, &known)))
        }
    }
}

#[cfg(test)]
mod kubernetes_tests;
#[cfg(test)]
mod tests;
