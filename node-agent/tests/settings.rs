//! For every setting of the agent: flag over environment over file over default, shown by the program itself.
#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::process::{Command, Output};

use serde_json::Value;

/// Some of these fit any setting.
const CANDIDATES: &[&str] = &[
    "/tmp/one",
    "/tmp/two",
    "one",
    "two",
    "three",
    "127.0.0.1:1",
    "127.0.0.1:2",
    "61m",
    "62m",
    "63m",
    "2",
    "3",
    "text",
    "json",
    "warn",
    "debug",
    "off",
    "true",
    "false",
    "10.0.0.0/8",
    "true",
];

/// The program in an environment of nothing but `environment`.
fn tramline(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tramline"))
        .env_clear()
        .envs(environment.iter().copied())
        .args(arguments)
        .args(["-o", "json"])
        .output()
        .unwrap()
}

fn settings(environment: &[(&str, &str)], arguments: &[&str]) -> Option<Vec<Value>> {
    let output = tramline(environment, &[&["settings"], arguments].concat());
    output
        .status
        .success()
        .then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn of<'a>(rows: &'a [Value], name: &str) -> (&'a str, &'a str) {
    let row = rows.iter().find(|row| row["name"] == name).unwrap();
    (
        row["value"].as_str().unwrap_or("-"),
        row["source"].as_str().unwrap(),
    )
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let directory = tempfile::tempdir().unwrap();
    let all = settings(&[], &[]).unwrap();
    assert!(all.len() >= 15, "{all:?}");
    for row in &all {
        let name = row["name"].as_str().unwrap();
        let variable = row["environment"].as_str().unwrap();
        let default = row["value"].as_str();
        let flag = |value: &str| format!("--{name}={value}");
        let fitting: Vec<&str> = CANDIDATES
            .iter()
            .copied()
            .filter(|value| Some(*value) != default && settings(&[], &[&flag(value)]).is_some())
            .take(3)
            .collect();
        // A setting of two values can still be told from its default.
        let (Some(one), Some(two)) = (fitting.first(), fitting.get(1).or(fitting.first())) else {
            panic!("no candidate of this test fits --{name}: add one");
        };
        let three = fitting.get(2).unwrap_or(one);
        let file = directory.path().join(format!("{name}.yaml"));
        std::fs::write(&file, format!("{name}: {three:?}\n")).unwrap();
        let config = format!("--config={}", file.display());
        let environment = [(variable, *two)];

        let rows = settings(&environment, &[&config, &flag(one)]).unwrap();
        assert_eq!(of(&rows, name), (*one, "flag"), "{name}");
        let rows = settings(&environment, &[&config]).unwrap();
        assert_eq!(of(&rows, name), (*two, "environment"), "{name}");
        let rows = settings(&[], &[&config]).unwrap();
        assert_eq!(of(&rows, name), (*three, "file"), "{name}");
        let expected = if default.is_some() { "default" } else { "unset" };
        assert_eq!(of(&all, name), (default.unwrap_or("-"), expected), "{name}");
    }
    // The file itself may be named by the environment.
    let file = directory.path().join("node.yaml");
    let rows = settings(&[("TRAMLINE_CONFIG", file.to_str().unwrap())], &[]).unwrap();
    assert_eq!(of(&rows, "node").1, "file");
}

#[test]
fn exit_codes_are_those_of_the_documentation() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("admin.sock");
    let nowhere = nowhere.to_str().unwrap();
    let code = |arguments: &[&str]| tramline(&[], arguments).status.code();
    assert_eq!(code(&["version"]), Some(0));
    assert_eq!(code(&["settings", "--config", "/no/such.toml"]), Some(1));
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["explain", "--from", "a b"]), Some(2));
    assert_eq!(code(&["log-level", "a b"]), Some(2));
    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "nodee = 1\n").unwrap();
    assert_eq!(code(&["settings", "--config", bad.to_str().unwrap()]), Some(2));
    // 3 needs an answer: `doctor` without a BPF file system where it is told to look.
    let without = directory.path().to_str().unwrap();
    assert_eq!(
        code(&["doctor", "--bpffs", without, "--cgroup-root", without]),
        Some(3)
    );
    for command in [
        "status",
        "workloads",
        "services",
        "certificates",
        "connections",
        "log-level",
    ] {
        assert_eq!(code(&[command, "--admin-socket", nowhere]), Some(4), "{command}");
    }
    let explain = [
        "explain",
        "--from",
        "a/b",
        "--to",
        "c:1",
        "--admin-socket",
        nowhere,
    ];
    assert_eq!(code(&explain), Some(4));
}
