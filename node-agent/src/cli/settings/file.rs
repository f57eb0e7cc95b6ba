//! The file of `--config`: one value per setting, TOML or YAML by its name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use clap::error::ContextKind;
use clap::{Arg, ArgAction, Command};
use serde_norway::Value;

use super::{RunConfig, name, settings, takes_several};
use crate::cli::exit::{Exit, Failure};
use clap::Args as _;

/// Far more than any settings take.
const MAX_BYTES: u64 = 256 * 1024;

/// What the file gives for one setting.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Given {
    /// One value.
    One(String),
    /// Several, for a flag that may be given several times.
    Several(Vec<String>),
}

impl Given {
    pub(super) fn values(&self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value.clone()],
            Self::Several(values) => values.clone(),
        }
    }
}

/// Reads and checks a file: every value as its flag would be.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Given>, Failure> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    if let Err(error) = read {
        return Err(Failure::new(Exit::Failure, format!("--config {shown}: {error}")));
    }
    if text.len() as u64 > MAX_BYTES {
        let what = format!("--config {shown}: larger than {MAX_BYTES} bytes");
        return Err(Failure::new(Exit::Usage, what));
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    parse(extension.unwrap_or_default(), &text).map_err(|problems| {
        let lines: Vec<_> = problems
            .iter()
            .map(|problem| format!("--config {shown}: {problem}"))
            .collect();
        Failure::new(Exit::Usage, lines.join("; ")).next("docs/SETTINGS.md lists every setting")
    })
}

/// The values by name, or everything that is wrong.
pub(super) fn parse(extension: &str, text: &str) -> Result<BTreeMap<String, Given>, Vec<String>> {
    let table = match extension {
        "toml" => toml::from_str(text).map_err(|error| vec![toml_problem(&error, text)])?,
        "yaml" | "yml" | "json" => yaml(text).map_err(|problem| vec![problem])?,
        _ => {
            return Err(vec![
                "its name must end in .toml, .yaml, .yml or .json".to_owned(),
            ]);
        }
    };
    let settings = settings();
    let (mut given, mut problems) = (BTreeMap::new(), Vec::new());
    for (key, value) in table {
        let Some(setting) = settings.iter().find(|setting| name(setting) == key) else {
            problems.push(unknown(&key, &settings));
            continue;
        };
        match values(setting, value).and_then(|value| check(setting, &value).map(|()| value)) {
            Ok(value) => {
                given.insert(key, value);
            }
            Err(problem) => problems.push(format!("{key}: {problem}")),
        }
    }
    if problems.is_empty() {
        Ok(given)
    } else {
        Err(problems)
    }
}

/// The line of a TOML error; its own message spreads over several lines.
fn toml_problem(error: &toml::de::Error, text: &str) -> String {
    let line = error
        .span()
        .and_then(|span| text.get(..span.start))
        .map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

fn yaml(text: &str) -> Result<BTreeMap<String, Value>, String> {
    let value: Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    match value {
        Value::Null => Ok(BTreeMap::new()),
        Value::Mapping(mapping) => mapping
            .into_iter()
            .map(|(key, value)| match key {
                Value::String(key) => Ok((key, value)),
                other => Err(format!("the key {other:?} is no text")),
            })
            .collect(),
        _ => Err("is not a list of KEY: VALUE".to_owned()),
    }
}

fn unknown(key: &str, settings: &[Arg]) -> String {
    let nearest = settings
        .iter()
        .map(|setting| {
            (
                strsim::osa_distance(&key.to_lowercase().replace('_', "-"), name(setting)),
                name(setting),
            )
        })
        .min()
        .filter(|(distance, name)| distance * 3 <= name.len());
    match nearest {
        Some((_, name)) => format!("unknown setting `{key}`; did you mean `{name}`?"),
        None => format!("unknown setting `{key}`"),
    }
}

fn values(setting: &Arg, value: Value) -> Result<Given, String> {
    match value {
        Value::Sequence(items) if takes_several(setting) => items
            .into_iter()
            .map(scalar)
            .collect::<Result<_, _>>()
            .map(Given::Several),
        Value::Sequence(_) => Err("takes one value, not a list".to_owned()),
        one => scalar(one).map(Given::One),
    }
}

fn scalar(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(value) => Ok(value.to_string()),
        // A fraction would lose what was written, such as the 0 of `1.10`.
        Value::Number(number) if !number.is_f64() => Ok(number.to_string()),
        Value::Number(_) => Err("write it in quotes".to_owned()),
        Value::Null => Err("has no value; leave the key out for the default".to_owned()),
        _ => Err("takes one value, not a table".to_owned()),
    }
}

/// Whether the flag would take the value.
fn check(setting: &Arg, given: &Given) -> Result<(), String> {
    if matches!(setting.get_action(), ArgAction::SetTrue | ArgAction::SetFalse) {
        return match given {
            Given::One(value) if value == "true" || value == "false" => Ok(()),
            _ => Err("is true or false".to_owned()),
        };
    }
    // Nothing but this one flag: the environment does not matter here.
    let alone = RunConfig::augment_args(Command::new("run"))
        .args(std::iter::once(setting.clone()).filter(|arg| arg.get_id() == super::ADMIN_SOCKET))
        .mut_args(|arg| arg.required(false).env(None::<&'static str>));
    let flags = given
        .values()
        .into_iter()
        .map(|value| format!("--{}={value}", name(setting)));
    match alone.try_get_matches_from(std::iter::once("run".to_owned()).chain(flags)) {
        Ok(_) => Ok(()),
        Err(error) => Err(problem(&error)),
    }
}

fn problem(error: &clap::Error) -> String {
    let text = |kind| error.get(kind).map(ToString::to_string);
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let source = std::error::Error::source(error);
    match (source, text(ContextKind::ValidValue)) {
        (Some(source), _) => format!("`{value}`: {source}"),
        (None, Some(valid)) => format!("`{value}` is none of {valid}"),
        (None, None) => {
            let first = error.to_string();
            first
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned()
        }
    }
}
