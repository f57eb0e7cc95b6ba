use std::fmt::Write as _;

use clap::builder::StyledStr;

use super::*;
use crate::cli::Exit;
use crate::observe::test_support::assert_document;

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(Into::into).collect()
}

/// Runs the parser with a file of this name and text.
fn with_file(name: &str, text: &str, words: &[&str]) -> Result<Parsed, Refusal> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut all = arguments(&["tramline", "run", "--config"]);
    all.push(path.into_os_string());
    all.extend(arguments(words));
    parse(&all)
}

fn run_of(parsed: Parsed) -> RunConfig {
    match parsed.cli.command {
        crate::cli::Command::Run(config) => *config,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_gives_what_flags_leave_open() {
    let toml = "node = 'from-file'\nconfig-dir = '/file'\nworkers = 3\naccess-log-format = 'text'\nadmin-socket = '/s'\n";
    let parsed = with_file("a.toml", toml, &["--node", "from-flag"]).unwrap();
    assert_eq!(parsed.cli.admin_socket, PathBuf::from("/s"));
    let config = run_of(parsed);
    assert_eq!(config.node, "from-flag");
    assert_eq!(config.config_dir, PathBuf::from("/file"));
    assert_eq!(config.workers.unwrap().get(), 3);
    assert_eq!(config.trust_domain, "cluster.local", "the default");
    let yaml = "node: from-file\nconfig-dir: /file\nworkers: 3\n";
    let parsed = with_file("a.yaml", yaml, &[]).unwrap();
    let sources: Vec<_> = rows(&parsed)
        .into_iter()
        .filter(|row| ["node", "workers", "trust-domain", "cgroup-root"].contains(&row.name.as_str()))
        .map(|row| (row.value, row.source))
        .collect();
    assert_eq!(
        sources,
        [
            (Some("from-file".into()), "file"),
            (Some("cluster.local".into()), "default"),
            (None, "unset"),
            (Some("3".into()), "file"),
        ]
    );
    assert_eq!(run_of(parsed).node, "from-file");
}

#[test]
fn a_setting_that_takes_several_takes_them_everywhere() {
    let aliases = |parsed: Parsed| -> Vec<String> {
        let config = run_of(parsed);
        config
            .trust_domain_alias
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    let both = ["old.example", "older.example"];
    let required = ["--node", "n", "--config-dir", "/c"];
    let flags = |words: &[&str]| with_file("a.yaml", "", &[&required, words].concat());
    assert_eq!(aliases(flags(&[]).unwrap()), Vec::<String>::new());
    let twice = ["--trust-domain-alias", both[0], "--trust-domain-alias", both[1]];
    assert_eq!(aliases(flags(&twice).unwrap()), both);
    // As the environment has to write it.
    let once = ["--trust-domain-alias", "old.example,older.example"];
    assert_eq!(aliases(flags(&once).unwrap()), both);
    for (name, text) in [
        ("a.yaml", "trust-domain-alias: [old.example, older.example]\n"),
        (
            "a.toml",
            "trust-domain-alias = ['old.example', 'older.example']\n",
        ),
        ("a.yaml", "trust-domain-alias: old.example,older.example\n"),
    ] {
        let parsed = with_file(name, text, &required).unwrap();
        let row = rows(&parsed)
            .into_iter()
            .find(|row| row.name == "trust-domain-alias");
        let row = row.unwrap();
        assert_eq!(
            (row.value.as_deref(), row.source),
            (Some("old.example,older.example"), "file")
        );
        assert_eq!(aliases(parsed), both, "{text}");
    }
    let Err(Refusal::Usage(error)) = flags(&["--trust-domain-alias", "spiffe://old.example"]) else {
        panic!("no trust domain, and taken")
    };
    assert!(
        error
            .to_string()
            .contains("trust domain must be 1 to 255 characters"),
        "{error}"
    );
    let Err(Refusal::File(failure)) = with_file("a.yaml", "trust-domain-alias: [a, B]\n", &required) else {
        panic!("no trust domain, and taken")
    };
    assert!(
        failure.what.contains("trust-domain-alias: `B`: "),
        "{}",
        failure.what
    );
}

#[test]
fn what_neither_file_nor_flag_gives_is_still_required() {
    let Err(Refusal::Usage(error)) = with_file("a.toml", "node = 'n'\n", &[]) else {
        panic!("--config-dir is not there");
    };
    assert!(error.to_string().contains("--config-dir"), "{error}");
}

#[test]
fn everything_wrong_with_a_file_is_said_with_what_would_be_right() {
    for (name, text, wanted) in [
        (
            "a.toml",
            "nodee = 'n'",
            "unknown setting `nodee`; did you mean `node`?",
        ),
        ("a.yaml", "config_dir: /x", "did you mean `config-dir`?"),
        ("a.yaml", "TrustDomain: x", "did you mean `trust-domain`?"),
        ("a.toml", "blurb = 1", "unknown setting `blurb`"),
        ("a.toml", "config = 'b.toml'", "unknown setting `config`"),
        ("a.toml", "workers = 0", "workers: `0`: "),
        (
            "a.toml",
            "certificate-ttl = '1w'",
            "certificate-ttl: `1w`: \"1w\" is not a duration such as 90s",
        ),
        (
            "a.toml",
            "access-log-format = 'xml'",
            "`xml` is none of json, text",
        ),
        ("a.toml", "node = ['a', 'b']", "node: takes one value, not a list"),
        ("a.toml", "node = { a = 1 }", "node: takes one value, not a table"),
        (
            "a.toml",
            "trust-domain = 1.10",
            "trust-domain: write it in quotes",
        ),
        ("a.yaml", "node:", "node: has no value"),
        ("a.yaml", "- node", "is not a list of KEY: VALUE"),
        ("a.yaml", "node: a\nnode: b", "duplicate entry"),
        ("a.toml", "node = 'a'\nnode = 'b'", "line 2: duplicate key"),
        ("a.toml", "node = \n", "line 1: "),
        ("a.ini", "node = 'a'", "must end in .toml, .yaml"),
        (
            "a.toml",
            &format!("node = '{}'", "x".repeat(300_000)),
            "larger than",
        ),
    ] {
        let Err(Refusal::File(failure)) = with_file(name, text, &[]) else {
            panic!("{name}: {wanted}");
        };
        assert!(failure.what.contains(wanted), "{wanted}: {}", failure.what);
        assert!(failure.what.contains(name), "the file is named: {}", failure.what);
        assert_eq!(failure.exit, Exit::Usage);
    }
    let two = with_file("a.toml", "nodee = 'n'\nworkers = 0\n", &[]);
    assert!(
        matches!(two, Err(Refusal::File(failure)) if failure.what.contains("nodee") && failure.what.contains("workers"))
    );
    let missing = parse(&arguments(&["tramline", "run", "--config", "/no/such.toml"]));
    assert!(matches!(missing, Err(Refusal::File(failure)) if failure.exit == Exit::Failure));
}

#[test]
fn every_setting_takes_in_a_file_what_it_takes_as_a_flag() {
    for setting in settings() {
        let default = setting
            .get_default_values()
            .first()
            .and_then(|value| value.to_str());
        let Some(value) = default else { continue };
        let name = name(&setting);
        let read = file::parse("yaml", &format!("{name}: {value:?}\n"));
        assert!(read.is_ok(), "{name}: {read:?}");
    }
}

#[test]
fn docs_settings_md_is_current() {
    let mut page = String::from(
        "# Settings of the agent\n\n\
         Everything `tramline run` can be told. For each setting the flag wins over the environment variable, that over the file\n\
         named by `--config FILE` (or `TRAMLINE_CONFIG`), that over the default. `tramline settings` takes the same flags and shows each value\n\
         with where it comes from, without starting anything.\n\n\
         The file is TOML (`.toml`) or YAML (`.yaml`, `.yml`, `.json`): one `KEY = VALUE` or `KEY: VALUE` per setting, the key as in the table. A key\n\
         that is not in the table is an error, and so is a value that the flag would refuse. Relative paths are relative to the directory\n\
         the agent is started in.\n\n\
         ```toml\nnode = \"worker-1\"\nconfig-dir = \"/etc/tramline/manifests\"\naccess-log = \"/var/log/tramline/access.log\"\n```\n\n\
         Made by a test; `TRAMLINE_BLESS=1 cargo test -p tramline-node-agent docs_` writes it anew.\n\n\
         | key in the file | flag | environment | default | |\n|---|---|---|---|---|\n",
    );
    for setting in settings() {
        let help = setting.get_help().map(StyledStr::to_string).unwrap_or_default();
        let value = setting
            .get_value_names()
            .and_then(|names| names.first())
            .map_or_else(String::new, |name| format!(" {name}").replace('|', "\\|"));
        let defaults: Vec<_> = setting
            .get_default_values()
            .iter()
            .map(|value| value.to_string_lossy().into_owned())
            .collect();
        let default = match defaults.join(",") {
            none if none.is_empty() && setting.is_required_set() => "required".to_owned(),
            none if none.is_empty() => "none".to_owned(),
            value => format!("`{value}`"),
        };
        let env = setting
            .get_env()
            .unwrap_or_else(|| panic!("{} has no variable", name(&setting)));
        let name = name(&setting);
        writeln!(
            page,
            "| `{name}` | `--{name}{value}` | `{}` | {default} | {} |",
            env.to_string_lossy(),
            help.replace('|', "\\|").replace('\n', " ")
        )
        .unwrap();
        let expected = format!("TRAMLINE_{}", name.replace('-', "_").to_uppercase());
        assert_eq!(env.to_str(), Some(expected.as_str()), "one rule makes every name");
    }
    assert_document("SETTINGS.md", &page);
}
