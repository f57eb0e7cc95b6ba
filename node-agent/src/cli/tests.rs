use std::time::Duration;

use clap::CommandFactory as _;

use super::output::{self, Colours};
use super::*;
use crate::observe::access_log;
use crate::observe::admin::api::{AgentStatus, ConnectionRow, Status, WorkloadRow};
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

#[test]
fn tables_align_and_neutralise_control_characters() {
    let rows = vec![
        vec!["a".into(), "1".into()],
        vec!["longer\x1b[2J\n".into(), String::new()],
    ];
    assert_eq!(
        output::table(&["NAME", "N"], &rows),
        "NAME         N\na            1\nlonger\u{fffd}[2J\u{fffd}\n"
    );
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
fn rows_show_pods_and_addresses() {
    let row = ConnectionRow {
        id: 3,
        direction: "outbound".into(),
        path: "hbone".into(),
        security: "mutual_tls".into(),
        source_address: "10.0.1.2:40000".parse().unwrap(),
        source: Some("default/sleep".into()),
        source_identity: None,
        original_destination: "10.96.0.9:80".parse().unwrap(),
        destination_address: "10.0.2.3:15008".parse().unwrap(),
        destination: None,
        destination_identity: None,
        service: None,
        to_destination: 2048,
        to_source: 1,
        age_ms: 5_900,
        established: true,
    };
    let table = super::connections::table(&[row]);
    let expected = [
        "3",
        "outbound",
        "hbone",
        "mutual_tls",
        "default/sleep 10.0.1.2:40000",
        "10.96.0.9:80",
        "2.0KiB",
        "1B",
        "5s",
        "established",
    ];
    let line = table.lines().nth(1).unwrap();
    assert_eq!(
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect::<Vec<_>>(),
        expected
    );
    let workload = WorkloadRow {
        uid: "u".into(),
        namespace: "default".into(),
        name: "sleep".into(),
        node: "a".into(),
        identity: "spiffe://cluster.local/ns/default/sa/sleep".into(),
        addresses: vec!["10.0.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        protocol: "hbone".into(),
        ready: true,
        state: "enrolled".into(),
    };
    assert!(super::workloads::table(&[workload]).contains("10.0.1.2,fd00::2"));
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
    let names: Vec<_> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    page.push_str(&section("tramline", &command.render_long_help().to_string()));
    for name in names {
        let sub = command.find_subcommand_mut(&name).unwrap();
        // The page must not depend on who runs the test.
        let mut sub = sub
            .clone()
            .mut_args(|arg| arg.hide_env_values(true))
            .term_width(100);
        sub = sub.bin_name(format!("tramline {name}"));
        page.push_str(&section(
            &format!("tramline {name}"),
            &sub.render_long_help().to_string(),
        ));
    }
    assert_document("CLI.md", &page);
}

fn section(title: &str, help: &str) -> String {
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    format!("\n## {title}\n\n```\n{}\n```\n", lines.join("\n").trim_end())
}
