mod bounds;
mod dry_run;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tramline_core::reason::Reason;

use super::super::access_log::{Destination, Format};
use super::super::test_support::connection;
use super::super::{ConnectionInfo, Observer};
use super::families::Kind;
use super::*;

fn observer(settings: MetricsSettings) -> Arc<Observer> {
    let log = AccessLog::start(&Destination::Off, Format::Json).unwrap();
    Observer::new(Metrics::new(settings), Connections::new(1000), log)
}

/// Every sample line of metric `name`.
fn lines<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .collect()
}

/// The sum of all samples of `name` whose line holds `label`.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    let of_line = |line: &&str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    lines(text, name)
        .iter()
        .filter(|line| line.contains(label))
        .map(of_line)
        .sum()
}

#[test]
fn one_connection_counts_once_under_istios_names() {
    let observer = observer(MetricsSettings::default());
    let open = observer.open(connection(Reporter::Source));
    open.established();
    open.counters().add_to_destination(80);
    open.counters().add_to_source(233);
    let text = observer.render();
    assert_eq!(sum(&text, "istio_tcp_connections_opened_total", ""), 1.0);
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), 0.0);
    assert_eq!(
        sum(&text, "istio_tcp_received_bytes_total", ""),
        80.0,
        "a live connection's bytes show"
    );
    assert_eq!(sum(&text, "istio_tcp_sent_bytes_total", ""), 233.0);
    assert_eq!(sum(&text, "tramline_connections_open", "source"), 1.0);
    open.counters().add_to_source(1);
    open.finish(Reason::Ok);
    let text = observer.render();
    assert_eq!(
        sum(&text, "istio_tcp_sent_bytes_total", ""),
        234.0,
        "nothing counted twice"
    );
    assert_eq!(sum(&text, "istio_tcp_connections_opened_total", ""), 1.0);
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), 1.0);
    assert_eq!(sum(&text, "tramline_connections_open", "source"), 0.0);
    assert_eq!(
        lines(&text, "istio_tcp_connections_failed_total"),
        Vec::<&str>::new()
    );
    assert_eq!(
        lines(&text, "istio_tcp_connections_opened_total"),
        [concat!(
            "istio_tcp_connections_opened_total{reporter=\"source\",source_workload=\"sleep\",",
            "source_canonical_service=\"sleep\",source_canonical_revision=\"v1\",",
            "source_workload_namespace=\"default\",",
            "source_principal=\"spiffe://cluster.local/ns/default/sa/sleep\",source_app=\"sleep\",",
            "source_version=\"v1\",source_cluster=\"Kubernetes\",",
            "destination_service=\"helloworld.default.svc.cluster.local\",",
            "destination_service_namespace=\"default\",destination_service_name=\"helloworld\",",
            "destination_workload=\"helloworld\",destination_canonical_service=\"helloworld\",",
            "destination_canonical_revision=\"v1\",destination_workload_namespace=\"default\",",
            "destination_principal=\"spiffe://cluster.local/ns/default/sa/helloworld\",",
            "destination_app=\"helloworld\",destination_version=\"v1\",destination_cluster=\"Kubernetes\",",
            "request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"mutual_tls\"} 1"
        )]
    );
}

#[test]
fn a_refused_connection_is_failed_and_never_opened() {
    let observer = observer(MetricsSettings::default());
    observer
        .open(connection(Reporter::Destination))
        .finish(Outcome::new(Reason::PolicyDenied));
    let text = observer.render();
    assert_eq!(
        sum(
            &text,
            "istio_tcp_connections_failed_total",
            "response_flags=\"DENY\""
        ),
        1.0
    );
    assert_eq!(sum(&text, "istio_tcp_connections_opened_total", ""), 0.0);
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), 0.0);
    let refused = "reporter=\"destination\",verdict=\"deny\",reason=\"policy_denied\"";
    assert_eq!(sum(&text, "tramline_verdicts_total", refused), 1.0);
}

#[test]
fn a_connection_dropped_unfinished_is_counted_as_cancelled() {
    let observer = observer(MetricsSettings::default());
    drop(observer.open(connection(Reporter::Source)));
    let text = observer.render();
    assert_eq!(
        sum(
            &text,
            "tramline_verdicts_total",
            "verdict=\"fail\",reason=\"cancelled\""
        ),
        1.0
    );
    assert_eq!(sum(&text, "tramline_connections_open", ""), 0.0);
    assert!(observer.connections().is_empty());
}

#[test]
fn an_established_connection_that_is_reset_closes_with_its_flags() {
    let observer = observer(MetricsSettings::default());
    let open = observer.open(connection(Reporter::Source));
    open.established();
    open.finish(Reason::ResetByDestination);
    let text = observer.render();
    assert_eq!(sum(&text, "istio_tcp_connections_opened_total", ""), 1.0);
    assert_eq!(
        sum(
            &text,
            "istio_tcp_connections_closed_total",
            "response_flags=\"UC\""
        ),
        1.0
    );
    assert_eq!(sum(&text, "istio_tcp_connections_failed_total", ""), 0.0);
}

#[test]
fn the_time_to_connect_is_counted_once_and_only_where_it_was_reached() {
    let observer = observer(MetricsSettings::default());
    let open = observer.open(connection(Reporter::Source));
    open.established();
    open.established();
    open.finish(Reason::Ok);
    observer
        .open(connection(Reporter::Source))
        .finish(Reason::ConnectTimeout);
    // Never said to be established: it was, but when is not known.
    observer.open(connection(Reporter::Source)).finish(Reason::Ok);
    let text = observer.render();
    let count = "tramline_connect_seconds_count";
    assert_eq!(sum(&text, count, "reporter=\"source\",path=\"hbone\""), 1.0);
    assert_eq!(sum(&text, count, ""), 1.0, "{text}");
    let last = "le=\"10.0\",reporter=\"source\",path=\"hbone\"";
    assert_eq!(sum(&text, "tramline_connect_seconds_bucket", last), 1.0);
    let took = sum(&text, "tramline_connect_seconds_sum", "hbone");
    assert!(took > 0.0 && took < 1.0, "{took}");
}

#[test]
fn label_sets_are_bounded_and_the_rest_is_other() {
    let observer = observer(MetricsSettings {
        max_label_sets: 10,
        ..MetricsSettings::default()
    });
    for index in 0..100 {
        let mut info: ConnectionInfo = connection(Reporter::Source);
        info.source = Some(super::super::test_support::workload(
            &format!("w{index}"),
            "10.0.1.2",
        ));
        let open = observer.open(info);
        open.established();
        open.counters().add_to_source(5);
        open.finish(Reason::Ok);
    }
    let text = observer.render();
    let opened = lines(&text, "istio_tcp_connections_opened_total");
    assert_eq!(opened.len(), 11);
    assert_eq!(
        sum(&text, "istio_tcp_connections_opened_total", ""),
        100.0,
        "none is lost"
    );
    assert_eq!(
        sum(
            &text,
            "istio_tcp_connections_opened_total",
            "source_workload=\"other\""
        ),
        90.0
    );
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), 100.0);
    assert_eq!(sum(&text, "istio_tcp_sent_bytes_total", ""), 500.0);
    assert_eq!(sum(&text, "tramline_metric_label_sets", ""), 10.0);
    assert!(sum(&text, "tramline_metric_label_sets_overflowed_total", "") >= 90.0);
}

#[test]
fn idle_label_sets_make_room_and_those_in_use_do_not() {
    let idle_label_set = std::time::Duration::from_millis(200);
    let observer = observer(MetricsSettings {
        max_label_sets: 3,
        idle_label_set,
        ..MetricsSettings::default()
    });
    let open = |name: &str| {
        let mut info: ConnectionInfo = connection(Reporter::Source);
        info.source = Some(super::super::test_support::workload(name, "10.0.1.2"));
        let open = observer.open(info);
        open.established();
        open
    };
    let held = open("held");
    for index in 0..10 {
        open(&format!("first{index}")).finish(Reason::Ok);
    }
    // No scrape in between: the table makes room by itself.
    std::thread::sleep(2 * idle_label_set);
    open("late").finish(Reason::Ok);
    let text = observer.render();
    let opened = "istio_tcp_connections_opened_total";
    assert_eq!(sum(&text, opened, "source_workload=\"held\""), 1.0);
    assert_eq!(sum(&text, opened, "source_workload=\"late\""), 1.0);
    assert_eq!(sum(&text, opened, "source_workload=\"other\""), 8.0);
    assert_eq!(lines(&text, opened).len(), 3, "{text}");
    held.finish(Reason::Ok);
}

#[test]
fn every_series_is_exposed_once_even_after_an_overflow() {
    let settings = MetricsSettings {
        max_label_sets: 1,
        idle_label_set: std::time::Duration::ZERO,
        ..MetricsSettings::default()
    };
    let observer = observer(settings);
    let first = observer.open(connection(Reporter::Source));
    first.established();
    let second = observer.open(connection(Reporter::Destination));
    second.established();
    first.finish(Reason::Ok);
    // By now the first label set could make room for one named `other`.
    second.finish(Reason::ResetBySource);
    let text = observer.render();
    let mut names: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{text}");
    assert_eq!(
        sum(
            &text,
            "istio_tcp_connections_closed_total",
            "source_workload=\"other\""
        ),
        1.0
    );
}

#[test]
fn a_record_fits_its_memory_budget() {
    // Table slot and counters come on top; the whole of telemetry stays under 1 KiB per connection.
    let record = size_of::<Live>() + size_of::<super::super::OpenConnection>();
    assert!(record <= 640, "{record} bytes");
}

#[test]
fn a_full_table_still_counts_and_says_so() {
    let log = AccessLog::start(&Destination::Off, Format::Json).unwrap();
    let observer = Observer::new(
        Metrics::new(MetricsSettings::default()),
        Connections::new(16),
        log,
    );
    let open: Vec<_> = (0..20)
        .map(|_| observer.open(connection(Reporter::Source)))
        .collect();
    open[19].counters().add_to_source(7);
    assert_eq!(observer.connections().len(), 16);
    assert_eq!(observer.connections().unlisted(), 4);
    for connection in open {
        connection.finish(Reason::Ok);
    }
    let text = observer.render();
    assert_eq!(sum(&text, "istio_tcp_sent_bytes_total", ""), 7.0);
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), 20.0);
    assert_eq!(sum(&text, "tramline_connections_unlisted_total", ""), 4.0);
}

#[test]
fn a_scrape_during_a_close_counts_every_byte_once() {
    let observer = observer(MetricsSettings::default());
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let observer = Arc::clone(&observer);
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let open = observer.open(connection(Reporter::Source));
                    for _ in 0..10 {
                        open.counters().add_to_destination(3);
                    }
                    open.finish(Reason::Ok);
                }
            })
        })
        .collect();
    while workers.iter().any(|worker| !worker.is_finished()) {
        observer.render();
    }
    for worker in workers {
        worker.join().unwrap();
    }
    let text = observer.render();
    assert_eq!(
        sum(&text, "istio_tcp_received_bytes_total", ""),
        4.0 * 200.0 * 30.0
    );
    assert_eq!(sum(&text, "istio_tcp_connections_opened_total", ""), 800.0);
    assert_eq!(sum(&text, "istio_tcp_connections_closed_total", ""), 800.0);
}

/// A value of every family: TCP connections of both kinds, and a source for whatever the observer does not count.
fn everything() -> String {
    let observer = observer(MetricsSettings::default());
    let open = observer.open(connection(Reporter::Source));
    open.established();
    open.finish(Reason::Ok);
    observer
        .open(connection(Reporter::Destination))
        .finish(Reason::MtlsRequired);
    let before = observer.render();
    for family in families::ALL {
        let first = match family.kind {
            Kind::Histogram => format!("{}_count", family.name),
            Kind::Counter | Kind::Gauge => family.exposed_name(),
        };
        if lines(&before, &first).is_empty() {
            let labels = family
                .labels
                .iter()
                .map(|label| format!("some {label}"))
                .collect();
            let value = match family.kind {
                Kind::Histogram => Value::Histogram(crate::latency::histogram()),
                Kind::Counter | Kind::Gauge => Value::Number(3.0),
            };
            let sample = Sample { labels, value };
            observer.metrics().register(family, move || vec![sample.clone()]);
        }
    }
    observer.render()
}

#[test]
fn every_metric_is_exposed_with_exactly_its_name_and_labels() {
    let text = everything();
    let mut exposed = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels: Vec<_> = match rest.split_once('}') {
            Some(("{", _)) | None => Vec::new(),
            Some((labels, _)) => labels[1..]
                .split("\",")
                .map(|pair| pair.split_once('=').unwrap().0)
                .collect(),
        };
        exposed.insert(format!("{name} {}", labels.join(",")));
    }
    let mut documented = BTreeSet::new();
    for family in families::ALL {
        let labels = family.labels.join(",");
        if family.kind == Kind::Histogram {
            for part in ["sum", "count"] {
                documented.insert(format!("{}_{part} {labels}", family.name));
            }
            let with_le = [&["le"], family.labels].concat().join(",");
            documented.insert(format!("{}_bucket {with_le}", family.name));
        } else {
            documented.insert(format!("{} {labels}", family.exposed_name()));
        }
    }
    assert_eq!(exposed, documented);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_sample_with_the_wrong_labels_is_left_out() {
    let observer = observer(MetricsSettings::default());
    observer.metrics().register(&families::EBPF_EVENTS, || {
        vec![
            Sample::plain(1.0),
            Sample::count(["map_full"], 2),
            Sample::count(["quote\"line\n"], 1),
        ]
    });
    assert_eq!(
        lines(&observer.render(), "tramline_ebpf_events_total"),
        [
            "tramline_ebpf_events_total{event=\"map_full\"} 2.0",
            "tramline_ebpf_events_total{event=\"quote\\\"line\\n\"} 1.0"
        ]
    );
}

/// What the tables do not say.
const NOTES: &str = "\
## Denials

A denial is one at both ends, in the access log (`verdict` deny) and in the metrics (`response_flags` DENY):

- At the destination the agent that decides names the policy.
- At the source the agent is told the reason: in a header of the answer to CONNECT (`tramline-reason`), or, for a connection that
  is cut after it was up, by the error code of the stream's RST_STREAM (0x746c0001 `policy_denied`, 0x746c0002
  `unknown_workload`, 0x746c0003 `no_certificate`, 0x746c0004 `limit_reached`): CONNECT streams have no trailers. Names of policies
  do not travel.
- ztunnel at the destination says 401 for a policy's denial and nothing else, which counts as `policy_denied`; a connection that it
  cuts later is `reset_by_destination`. ztunnel at the source sees a reset, as from its own kind.
- A client outside the mesh that comes in plaintext sees a reset or no answer; only the destination tells why.

Bytes and the opening of a connection are counted under the flag `-`; its end is counted under the flag of its reason.

## Bounds

- At most 4,000 label sets of the `istio_tcp_*` metrics are kept (five metrics each). Further ones are counted under the value
  `other` of every label but `reporter`, and `tramline_metric_label_sets_overflowed_total` says how often.
- A label set that no connection has used for 15 minutes is removed; live connections keep theirs. When it comes back it
  starts at zero, which Prometheus takes for a restart of the counter.
- `policy` has at most 1,000 values of `tramline_dry_run_total` with its other labels; further ones are counted under `other`, and one
  that no connection ended under for 15 minutes is removed.
- `source_cluster` of a connection from a tunnel is what the agent at the other end says (`--cluster-id` there), which nothing proves: at most
  64 names beside this agent's own have a value of their own, further ones are counted under `other`.
- `reason`, `event`, `map` and `path` have fixed sets of values; `identity` has at most 1,000.
- Buckets of the histograms: 100 µs, 250 µs, 500 µs and so on up to 10 s.
";

#[test]
fn docs_metrics_md_is_current() {
    assert_eq!(
        (MAX_LABEL_SETS, IDLE_LABEL_SET.as_secs(), foreign_clusters::MOST),
        (4_000, 15 * 60, 64),
        "NOTES"
    );
    let mut page = String::from(
        "# Metrics\n\nOpenMetrics text at `/metrics` of `--metrics-address`. This page is made from \
         `node-agent/src/observe/metrics/families.rs`;\n`TRAMLINE_BLESS=1 cargo test -p tramline-node-agent docs_` \
         writes it anew.\n\nLabels marked *Istio's* are the 23 below the table.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for family in families::ALL {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = if family.labels == labels::TCP_LABELS.as_slice() {
            "*Istio's*".to_owned()
        } else {
            family
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let _ = writeln!(
            page,
            "| `{}` | {kind} | {labels} | {} |",
            family.exposed_name(),
            family.help
        );
    }
    page.push_str("\nIstio's labels, in this order:\n\n");
    for label in labels::TCP_LABELS {
        let _ = writeln!(page, "- `{label}`");
    }
    page.push_str("\nValues of `reason` (also in the access log), with the `response_flags` they imply:\n\n");
    page.push_str("| reason | response_flags | verdict | meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let _ = writeln!(
            page,
            "| `{reason}` | `{}` | {} | {} |",
            reason.response_flags(),
            Verdict::of(*reason).as_str(),
            reason.description()
        );
    }
    let _ = write!(page, "\n{NOTES}");
    crate::observe::test_support::assert_document("METRICS.md", &page);
}
