mod destinations;
mod hostile;
mod page;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, UNIX_EPOCH};

use tramline_core::authz::{Decision, DeniedBy};
use tramline_core::reason::Reason;

use super::super::record::{Outcome, Reporter};
use super::super::test_support::{connection, denied_by};
use super::*;

fn entry(reporter: Reporter, outcome: Outcome) -> Entry {
    Entry {
        time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
        duration: Duration::from_micros(12_900),
        connect: Some(Duration::from_micros(1_041)),
        to_destination: 80,
        to_source: 233,
        cluster: ClusterName::default(),
        info: connection(reporter),
        outcome,
    }
}

fn line_of(entry: &Entry, format: Format) -> String {
    let mut line = String::new();
    format::line(&mut line, entry, format);
    line
}

#[test]
fn a_text_line_has_every_field_in_ztunnels_names() {
    let line = line_of(&entry(Reporter::Source, Outcome::new(Reason::Ok)), Format::Text);
    assert_eq!(
        line,
        "time=2023-11-14T22:13:20.042Z start=2023-11-14T22:13:20.029Z direction=outbound \
         trace_id=4bf92f3577b34da6a3ce929d0e0e4737 src.addr=10.0.1.2:40000 src.workload=sleep-5d9c-x7 \
         src.namespace=default src.cluster=Kubernetes \
         src.identity=spiffe://cluster.local/ns/default/sa/sleep dst.addr=10.0.2.3:15008 \
         dst.original=10.96.0.9:5000 dst.hbone_addr=10.0.2.3:5000 dst.service=helloworld.default.svc.cluster.local \
         dst.workload=helloworld-5d9c-x7 dst.namespace=default \
         dst.cluster=Kubernetes dst.identity=spiffe://cluster.local/ns/default/sa/helloworld \
         bytes_sent=80 bytes_recv=233 duration_ms=12 \
         connect_ms=1.041 path=hbone security=mutual_tls verdict=allow reason=ok response_flags=-\n"
    );
}

#[test]
fn a_json_line_counts_bytes_from_this_sides_view_and_names_the_policy() {
    let outcome = Outcome::new(Reason::PolicyDenied)
        .with_policy("default/deny-all rule 0")
        .with_detail("no rule");
    let line = line_of(&entry(Reporter::Destination, outcome), Format::Json);
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["direction"], "inbound");
    assert_eq!(
        (value["bytes_sent"].as_u64(), value["bytes_recv"].as_u64()),
        (Some(233), Some(80))
    );
    assert_eq!(value["verdict"], "deny");
    assert_eq!(value["reason"], "policy_denied");
    assert_eq!(value["policy"], "default/deny-all rule 0");
    assert_eq!(value["detail"], "no rule");
}

#[test]
fn the_clients_cluster_is_what_its_agent_says_and_the_servers_is_ours() {
    let mut entry = entry(Reporter::Destination, Outcome::new(Reason::Ok));
    let clusters = |entry: &Entry| {
        let line: serde_json::Value = serde_json::from_str(&line_of(entry, Format::Json)).unwrap();
        [line["src.cluster"].clone(), line["dst.cluster"].clone()]
    };
    assert_eq!(clusters(&entry), ["Kubernetes", "Kubernetes"]);
    entry.info.claimed_cluster = Some("east\"\\=".parse().unwrap());
    assert_eq!(clusters(&entry), ["east\"\\=", "Kubernetes"]);
    entry.cluster = "west".parse().unwrap();
    (entry.info.source, entry.info.claimed_cluster) = (None, None);
    assert_eq!(clusters(&entry), [serde_json::Value::Null, "west".into()]);
    entry.info.destination = None;
    assert_eq!(
        clusters(&entry),
        [serde_json::Value::Null, serde_json::Value::Null]
    );
}

#[test]
fn a_dry_run_tells_what_would_have_been_decided_and_by_whom_in_both_formats() {
    let mut allowed = entry(Reporter::Destination, Outcome::new(Reason::Ok));
    assert!(!line_of(&allowed, Format::Text).contains("dry_run"));
    allowed.info.dry_run = Some(Arc::new(denied_by("no-sleep")));
    let text = line_of(&allowed, Format::Text);
    assert!(
        text.ends_with(
            " verdict=allow reason=ok response_flags=- dry_run=deny dry_run_policy=default/no-sleep \
             dry_run_detail=\"denied by AuthorizationPolicy default/no-sleep rule 0\"\n"
        ),
        "{text}"
    );
    let value: serde_json::Value = serde_json::from_str(&line_of(&allowed, Format::Json)).unwrap();
    assert_eq!(value["verdict"], "allow");
    assert_eq!(value["dry_run"], "deny");
    assert_eq!(value["dry_run_policy"], "default/no-sleep");
    assert_eq!(
        value["dry_run_detail"],
        "denied by AuthorizationPolicy default/no-sleep rule 0"
    );

    // Where a default would decide there is no policy to name.
    let by = DeniedBy::NoAllowRule;
    allowed.info.dry_run = Some(Arc::new(Decision::Deny { by }));
    let value: serde_json::Value = serde_json::from_str(&line_of(&allowed, Format::Json)).unwrap();
    assert_eq!(value["dry_run"], "deny");
    assert_eq!(value["dry_run_policy"], serde_json::Value::Null);
    assert_eq!(
        value["dry_run_detail"],
        "denied: no rule of the ALLOW policies matches"
    );
}

#[test]
fn a_file_gets_every_line_and_is_not_world_readable() {
    use std::os::unix::fs::MetadataExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let log = AccessLog::start(&Destination::File(path.clone()), Format::Json).unwrap();
    for _ in 0..1000 {
        log.write(entry(Reporter::Source, Outcome::new(Reason::Ok)));
    }
    assert!(log.flush(Duration::from_secs(10)));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1000);
    assert_eq!((log.written(), log.dropped()), (1000, 0));
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o007, 0);
    let missing = directory.path().join("no/such/dir/access.log");
    assert!(AccessLog::start(&Destination::File(missing), Format::Json).is_err());
}

/// An output that blocks in its first write until told to go on.
struct Stuck {
    entered: Sender<()>,
    go: Receiver<()>,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.entered.send(());
        let _ = self.go.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_reader_costs_lines_and_never_time() {
    let (entered, is_stuck) = channel();
    let (release, go) = channel();
    let log = AccessLog::to_output(Output::of(Box::new(Stuck { entered, go })), Format::Text, 4).unwrap();
    log.write(entry(Reporter::Source, Outcome::new(Reason::Ok)));
    is_stuck.recv_timeout(Duration::from_secs(10)).unwrap();
    for _ in 0..10 {
        log.write(entry(Reporter::Source, Outcome::new(Reason::Ok)));
    }
    assert_eq!(
        log.dropped(),
        7,
        "one in hand and three waiting fill a queue of four"
    );
    assert!(!log.flush(Duration::from_millis(20)));
    drop(release);
    assert!(log.flush(Duration::from_secs(10)));
    assert_eq!(log.written(), 4);
}

#[test]
fn a_full_queue_takes_the_memory_that_is_said() {
    // Shared texts come on top, as for each live connection.
    let full = QUEUE_LINES * size_of::<Entry>();
    assert!(full <= 32 << 20, "{full} bytes");
}

#[test]
fn a_write_that_fails_counts_its_lines_as_dropped() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = AccessLog::to_output(Output::of(Box::new(Full)), Format::Text, 4).unwrap();
    log.write(entry(Reporter::Source, Outcome::new(Reason::Ok)));
    assert!(log.flush(Duration::from_secs(10)));
    assert_eq!((log.written(), log.dropped()), (0, 1));
}
