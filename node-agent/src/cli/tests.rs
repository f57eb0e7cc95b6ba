use std::time::Duration;

use clap::CommandFactory as _;

use super::output::{self, Colours, Output, View};
use super::schema_tests;
use super::*;
use crate::doctor::Check;
use crate::observe::access_log;
use crate::observe::admin::api::{AgentStatus, Status};
use crate::observe::checks::CheckResult;
use crate::observe::test_support::assert_document;

fn run_config(arguments: &[&str]) -> Result<RunConfig, clap::Error> {
    let all = ["tramline", "run", "--node", "a", "--config-dir", "/c"]
        .iter()
        .chain(arguments);
    match Cli::try_parse_from(all)?.command {
        Command::Run(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn run_has_the_documented_defaults() {
    let config = run_config(&[]).unwrap();
    assert_eq!(config.trust_domain, "cluster.local");
    assert_eq!(config.cluster_id.as_str(), "Kubernetes");
    assert_eq!(config.instance, "default");
    assert_eq!(config.metrics_address.0.unwrap().to_string(), "127.0.0.1:15020");
    assert_eq!(config.access_log, access_log::Destination::Stdout);
    assert_eq!(config.access_log_format, access_log::Format::Json);
    assert_eq!(config.certificate_ttl, Duration::from_secs(86_400));
    assert_eq!((config.cgroup_root, config.workers), (None, None));
    assert_eq!(config.state_dir, PathBuf::from("/var/lib/tramline"));
}

#[test]
fn run_takes_what_makes_sense_and_refuses_the_rest_as_usage() {
    let config = run_config(&[
        "--metrics-address",
        "0",
        "--access-log",
        "/var/log/a",
        "--workers",
        "3",
    ])
    .unwrap();
    assert_eq!(config.metrics_address.0, None);
    assert_eq!(
        config.access_log,
        access_log::Destination::File("/var/log/a".into())
    );
    assert_eq!(config.workers.unwrap().get(), 3);
    for bad in [
        ["--metrics-address", "localhost"],
        ["--instance", "../x"],
        ["--instance", ""],
        ["--cluster-id", ""],
        ["--cluster-id", "two words"],
        ["--certificate-ttl", "5s"],
        ["--certificate-ttl", "1"],
        ["--workers", "0"],
        ["--access-log-format", "xml"],
        ["--no-such", "flag"],
    ] {
        let error = run_config(&bad).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(Exit::Usage as u8), "{bad:?}");
    }
}

#[test]
fn the_admin_socket_may_stand_before_or_after_the_command() {
    for arguments in [
        ["--admin-socket", "/s", "status"],
        ["status", "--admin-socket", "/s"],
    ] {
        let cli = Cli::try_parse_from(["tramline"].iter().chain(&arguments)).unwrap();
        assert_eq!(cli.admin_socket, PathBuf::from("/s"));
    }
}

#[test]
fn no_agent_and_a_strange_one_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let missing = client::get::<Status>(&path, "/status").unwrap_err();
    assert_eq!(missing.exit, Exit::Unreachable);
    assert!(missing.what.contains("no agent answers at"), "{}", missing.what);
    assert!(missing.next.unwrap().contains("tramline run"));

    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let stranger = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
            .unwrap();
    });
    let strange = client::get::<Status>(&path, "/status").unwrap_err();
    stranger.join().unwrap();
    assert_eq!(strange.exit, Exit::Failure);
    assert!(strange.what.contains("answer not understood"), "{}", strange.what);
    // The listener is gone, its socket is not: nobody answers.
    assert_eq!(
        client::get::<Status>(&path, "/status").unwrap_err().exit,
        Exit::Unreachable
    );
}

/// Answers one request with `head` (without its end) and `body`.
fn once(path: &std::path::Path, head: &'static str, body: &'static str) -> std::thread::JoinHandle<()> {
    let _ = std::fs::remove_file(path);
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let answer = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).unwrap();
    })
}

#[test]
fn an_older_or_newer_agent_is_named_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let ask = |head, body| {
        let agent = once(&path, head, body);
        let failure = client::get::<Status>(&path, "/status").unwrap_err();
        agent.join().unwrap();
        assert_eq!(failure.exit, Exit::Failure);
        (failure.what, failure.next.unwrap_or_default())
    };
    let (what, next) = ask("404 Not Found", "there are /a and /b\n");
    assert!(what.contains("does not answer /status"), "{what}");
    assert!(next.contains("older than this program"), "{next}");
    let (_, next) = ask("404 Not Found\r\ntramline-version: 9.9.9 (abc)", "there are /a\n");
    assert!(
        next.contains("the agent is 9.9.9 (abc)") && next.contains("use the agent's own"),
        "{next}"
    );
    let (what, next) = ask("200 OK\r\ntramline-version: 9.9.9 (abc)", "{\"renamed\":1}");
    assert!(what.contains("not understood: missing field"), "{what}");
    assert!(next.contains("the agent is 9.9.9 (abc)"), "{next}");
    let (what, _) = ask(
        "400 Bad Request\r\nContent-Type: text/plain; charset=utf-8",
        "no such pod\n",
    );
    assert_eq!(what, "no such pod", "the agent's own words");
}

#[test]
fn sizes_and_ages_read_well() {
    let sizes = [0, 1023, 1024, 1_500_000, u64::MAX].map(output::bytes);
    assert_eq!(sizes, ["0B", "1023B", "1.0KiB", "1.4MiB", "16777216.0TiB"]);
    assert_eq!(
        [0, 119, 120, 7_200, 172_800].map(output::age),
        ["0s", "119s", "2m", "2h", "2d"]
    );
}

#[test]
fn status_shows_the_check_that_fails() {
    let status = Status {
        version: "0.1.0".into(),
        commit: "abc".into(),
        pid: 7,
        uptime_seconds: 300,
        ready: false,
        checks: vec![
            CheckResult {
                name: "kernel".into(),
                ok: true,
                detail: String::new(),
            },
            CheckResult {
                name: "config".into(),
                ok: false,
                detail: "a.yaml: bad\x1b[31m".into(),
            },
        ],
        connections: 2,
        log_level: "info".into(),
        agent: AgentStatus {
            node: "node-a".into(),
            generation: 4,
            ..AgentStatus::default()
        },
    };
    let text = super::status::text(&status, Colours::none());
    assert!(text.contains("ready          no\n"), "{text}");
    assert!(text.contains("node           node-a\n"), "{text}");
    assert!(text.contains("check kernel   ok\n"), "{text}");
    assert!(
        text.contains("check config   failed: a.yaml: bad\u{fffd}[31m\n"),
        "{text}"
    );
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["node"], "node-a", "the agent's part is flat");
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
}

#[test]
fn every_table_fits_and_wide_tells_everything() {
    let long = "a-name-of-sixty-characters-as-some-generated-pods-really-have";
    let mut workload = schema_tests::workload();
    workload.name = long.into();
    let mut service = schema_tests::service();
    service.name = long.into();
    let mut connections = schema_tests::connections();
    connections.connections[0].source = Some(format!("default/{long}"));
    let certificates = schema_tests::certificates();
    let mut policies = schema_tests::policies();
    policies[0].name = long.into();
    let tables = |view| {
        [
            super::workloads::table(&[workload.clone()], view).text(view),
            super::services::table(&[service.clone()], view).text(view),
            super::connections::table(&connections.connections, view).text(view),
            super::certificates::table(&certificates, view).text(view),
            super::policies::table(&policies, view).text(view),
        ]
    };
    for table in tables(View::plain(false)) {
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    }
    let [workloads, services, connections, certificates, policies] = tables(View::plain(true));
    for (table, wanted) in [
        (
            &workloads,
            vec![
                long,
                "10.0.1.2,fd00::2",
                "spiffe://cluster.local/ns/default/sa/sleep",
            ],
        ),
        (
            &services,
            vec![long, "80(http)", "1/2", "10.0.1.3:8080", "default/web-1"],
        ),
        (
            &connections,
            vec![long, "10.0.1.2:40000", "10.96.0.9:80", "2.0KiB", "established"],
        ),
        (
            &policies,
            vec![
                long,
                "no: rule_widened",
                "[0] from principals",
                "default/web-1 and 2 more",
                "policy.yaml:1",
            ],
        ),
        (
            &certificates,
            vec![
                "spiffe://cluster.local/ns/default/sa/sleep",
                "2h",
                "0a1b",
                "2026-11-24T16:00:00Z",
                "2 revoked, next promised 2026-11-25T03:59:00Z",
            ],
        ),
    ] {
        for wanted in wanted {
            assert!(table.contains(wanted), "{wanted} is not in\n{table}");
        }
    }
}

#[test]
fn every_command_with_an_answer_takes_every_format() {
    for command in [
        "status",
        "workloads",
        "services",
        "certificates",
        "connections",
        "log-level",
        "settings",
        "policies",
        "top",
        "doctor",
        "version",
    ] {
        for format in ["table", "wide", "json", "yaml"] {
            let parsed = Cli::try_parse_from(["tramline", command, "-o", format]);
            assert!(parsed.is_ok(), "{command} -o {format}");
        }
    }
    assert_eq!(<Output as clap::ValueEnum>::value_variants().len(), 4);
}

#[test]
fn completions_know_every_command() {
    use super::completions::{Shell, script};
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let script = script(shell);
        for command in Cli::command().get_subcommands() {
            assert!(
                script.contains(command.get_name()),
                "{shell:?}: {}",
                command.get_name()
            );
        }
    }
}

#[test]
fn doctor_prints_the_fix_under_what_failed() {
    let checks = [
        Check::ok("kernel", "6.18.5"),
        Check::failed("BPF file system", "none", "mount -t bpf bpf /sys/fs/bpf"),
    ];
    assert_eq!(
        super::doctor::text(&checks, Colours::none()),
        "ok       kernel           6.18.5\n\
         FAILED   BPF file system  none\n                          fix: mount -t bpf bpf /sys/fs/bpf\n"
    );
}

#[test]
fn docs_cli_md_is_current() {
    let mut page = String::from(
        "# Command line\n\nMade from the program's own help; `TRAMLINE_BLESS=1 cargo test -p tramline-node-agent docs_` \
         writes it anew.\n",
    );
    let mut command = Cli::command().term_width(100);
    command.build();
    page.push_str(&section("tramline", &command.render_long_help().to_string()));
    for sub in command.get_subcommands() {
        sections("tramline", sub, &mut page);
    }
    assert_document("CLI.md", &page);
}

/// The help of a command and of those below it.
fn sections(above: &str, command: &clap::Command, page: &mut String) {
    let title = format!("{above} {}", command.get_name());
    // The page must not depend on who runs the test.
    let mut whole = command
        .clone()
        .mut_args(|arg| arg.hide_env_values(true))
        .term_width(100)
        .bin_name(&title);
    page.push_str(&section(&title, &whole.render_long_help().to_string()));
    for sub in command.get_subcommands() {
        sections(&title, sub, page);
    }
}

fn section(title: &str, help: &str) -> String {
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    format!("\n## {title}\n\n```\n{}\n```\n", lines.join("\n").trim_end())
}
