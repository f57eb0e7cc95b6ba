//! The part of the Dockerfile language that `deploy/Dockerfile` uses.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// From one FROM to the next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// The name after AS, or `final`.
    pub(crate) name: String,
    pub(crate) base: String,
    pub(crate) instructions: Vec<Instruction>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Instruction {
    Workdir(PathBuf),
    Env(Vec<(String, String)>),
    /// `from` is a stage's name; without it the checkout.
    Copy {
        from: Option<String>,
        source: PathBuf,
        to: PathBuf,
    },
    Run(String),
    Entrypoint(Vec<String>),
}

/// Anything that is not known is an error: a step left out would make the trial say more than it saw.
pub(crate) fn parse(text: &str) -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    for line in joined(text) {
        let (keyword, rest) = line
            .split_once(' ')
            .with_context(|| format!("`{line}` has no argument"))?;
        let rest = rest.trim();
        if keyword == "FROM" {
            let words: Vec<_> = rest.split_whitespace().collect();
            let (base, name) = match words.as_slice() {
                [base] => (*base, "final"),
                [base, "AS", name] => (*base, *name),
                _ => bail!("cannot read `{line}`"),
            };
            stages.push(Stage {
                name: name.to_owned(),
                base: base.to_owned(),
                instructions: Vec::new(),
            });
            continue;
        }
        let instruction = instruction(keyword, rest).with_context(|| format!("cannot read `{line}`"))?;
        stages
            .last_mut()
            .context("an instruction before FROM")?
            .instructions
            .push(instruction);
    }
    Ok(stages)
}

fn instruction(keyword: &str, rest: &str) -> Result<Instruction> {
    Ok(match keyword {
        "WORKDIR" => Instruction::Workdir(PathBuf::from(rest)),
        "RUN" => Instruction::Run(rest.to_owned()),
        "ENTRYPOINT" => Instruction::Entrypoint(serde_json::from_str(rest)?),
        "ENV" => {
            let pairs = rest.split_whitespace().map(|pair| {
                pair.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            });
            Instruction::Env(pairs.collect::<Option<_>>().context("NAME=VALUE is expected")?)
        }
        "COPY" => {
            let mut words: Vec<_> = rest.split_whitespace().collect();
            let from = words
                .first()
                .and_then(|word| word.strip_prefix("--from="))
                .map(str::to_owned);
            if from.is_some() {
                words.remove(0);
            }
            let [source, to] = words.as_slice() else {
                bail!("one source and one destination are expected")
            };
            Instruction::Copy {
                from,
                source: PathBuf::from(source),
                to: PathBuf::from(to),
            }
        }
        other => bail!("{other} is not known here"),
    })
}

/// Lines without comments, those that end with a backslash joined with the next.
fn joined(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.strip_suffix('\\') {
            Some(beginning) => current.push_str(beginning),
            None => {
                current.push_str(line);
                lines.push(std::mem::take(&mut current));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_projects_own_file_is_understood() {
        let stages = parse(include_str!("../../../deploy/Dockerfile")).unwrap();
        assert_eq!(
            stages.iter().map(|stage| stage.base.as_str()).collect::<Vec<_>>(),
            ["debian:bookworm-slim", "scratch"]
        );
        let entrypoint = Instruction::Entrypoint(vec!["/usr/bin/tramline".to_owned()]);
        assert_eq!(stages[1].instructions.last(), Some(&entrypoint));
    }

    #[test]
    fn continued_lines_and_comments() {
        let stages =
            parse("# syntax\nFROM scratch\nRUN one \\\n  # why\n  && two\nENV A=1 B=2\nCOPY . .\n").unwrap();
        let expected = [
            Instruction::Run("one && two".to_owned()),
            Instruction::Env(vec![
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "2".to_owned()),
            ]),
            Instruction::Copy {
                from: None,
                source: PathBuf::from("."),
                to: PathBuf::from("."),
            },
        ];
        assert_eq!(stages[0].instructions, expected);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(parse("FROM scratch\nADD a b\n").is_err());
        assert!(parse("RUN before\n").is_err());
        assert!(parse("FROM a b c\n").is_err());
    }
}
