use super::*;
use crate::cli::output::View;
use crate::cli::schema_tests;

#[test]
fn a_denied_connection_reads_as_a_tree_within_80_columns() {
    let report = schema_tests::explanation();
    let text = text::connection(&report, "default/sleep", "web:80", View::plain(false));
    assert_eq!(text, include_str!("denied.txt"), "\n{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn endpoints_of_one_answer_are_not_told_twice() {
    let mut report = schema_tests::explanation();
    let mut second = report.explanation.endpoints[0].clone();
    second.address = "10.0.2.9:8080".parse().unwrap();
    report.explanation.endpoints.insert(1, second);
    let text = text::connection(&report, "default/sleep", "web:80", View::plain(false));
    assert_eq!(text.matches("DENY default/no-sleep for").count(), 1, "{text}");
    assert!(
        text.contains("the same policies and answer as 10.0.2.3:8080"),
        "{text}"
    );
}

#[test]
fn long_names_are_broken_and_control_characters_do_nothing() {
    let mut report = schema_tests::explanation();
    let long = format!("spiffe://{}/ns/default/sa/\x1b[31msleep", "x".repeat(200));
    report.explanation.source.identity = Some(long.clone());
    let narrow = text::connection(&report, "default/sleep", "web:80", View::plain(false));
    assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
    assert!(!narrow.contains('\x1b'));
    let wide = text::connection(&report, "default/sleep", "web:80", View::plain(true));
    assert!(wide.contains(&"x".repeat(200)), "{wide}");
}

#[test]
fn an_uncaptured_pod_is_told_why_and_what_to_do() {
    let text = text::capture(&schema_tests::capture(), View::plain(false));
    assert_eq!(
        text,
        "pod       default/sleep\n\
         captured  no (opted_out): the label istio.io/dataplane-mode: none on\n            \
         default/sleep keeps it out\n\
         remedy    remove that label\n\
         excluded  what it dials by port: 9100\n\
         excluded  what it dials by address: 10.1.0.0/16\n\
         excluded  its own ports: 9000\n\
         says      the agent of node a, configuration 7\n"
    );
}

#[test]
fn only_names_and_addresses_go_into_the_question() {
    for good in [
        "default/sleep",
        "10.0.0.1",
        "[fd00::1]:80",
        "web.ns.svc.cluster.local:80",
    ] {
        assert!(plain(good).is_ok(), "{good}");
    }
    for bad in ["", "a b", "a&to=b", "a?b", "a#b", "a%20b", "é"] {
        assert!(plain(bad).is_err(), "{bad}");
    }
}
