//! `docs/API.md`: names and types of everything that `-o json` and `-o yaml` print. Who scripts against it can rely
//! on it, so a change has to show up in that page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::log_level::LogLevel;
use super::settings::SettingRow;
use super::top::{Frame, Rate};
use super::version::Version;
use crate::discover::ConfigError;
use crate::discover::files::offline::Validation;
use crate::doctor::Check;
use crate::observe::admin::api::{
    AgentStatus, CaptureAnswer, CaptureReport, CertificateReport, CertificateRow, Conclusion,
    ConditionOverview, ConnectionList, ConnectionRow, Decision, EndpointPortRow, EndpointRow, Exclusions,
    ExplainDestination, ExplainEndpoint, ExplainReport, ExplainSource, Explanation, FieldStep, MtlsStep,
    PolicyExplanation, PolicyOverview, PolicyStep, RevocationListRow, RootRow, RuleStep, Scope,
    ServicePortRow, ServiceRow, Status, WorkloadRow,
};
use crate::observe::checks::CheckResult;
use crate::observe::test_support::assert_document;

const HEAD: &str = "# Answers of the command line

What `tramline COMMAND -o json` prints; `-o yaml` prints the same. Names and types are stable: a release adds fields and
new texts, it removes or changes none without a note in the changelog. `a[].b` is field `b` of every element of list `a`, `*` stands
for keys that depend on the data. A field without a value is `null`, never absent. Times are RFC 3339.

Every command ends with 0 when it is done, 1 when it failed, 2 when the command line is wrong, 3 when the answer is no (not
ready, a check failed, a connection that would be refused) and 4 when no agent answers. The answer is printed with 0 and 3; `config validate` ends with 1 for a directory
that an agent would refuse, and prints its answer then too.

Made by a test; `TRAMLINE_BLESS=1 cargo test -p tramline-node-agent docs_` writes it anew.
";

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}

/// One answer with everything in it for each command.
fn samples() -> Vec<(&'static str, Value)> {
    vec![
        ("status", value(&status())),
        ("workloads", value(&[workload()])),
        ("services", value(&[service()])),
        ("policies", value(&policies())),
        ("certificates", value(&certificates())),
        ("config validate", value(&validation())),
        ("explain --from POD --to HOST:PORT", value(&explanation())),
        ("explain --from POD", value(&capture())),
        ("connections", value(&connections())),
        ("top", value(&top())),
        ("settings", value(&[setting()])),
        ("doctor", value(&[Check::failed("kernel", "too old", "use 6.1")])),
        ("log-level", value(&LogLevel { level: "info".into() })),
        ("version", value(&Version::own())),
    ]
}

/// Fields that may be `null`, by command. Serialisation cannot tell, so each is named here and checked below.
const NULLABLE: &[(&str, &[&str])] = &[
    (
        "services",
        &[
            "[].ports[].app_protocol",
            "[].endpoints[].workload",
            "[].endpoints[].node",
            "[].endpoints[].zone",
        ],
    ),
    ("policies", &["[].origin", "[].selects"]),
    (
        "config validate",
        &[
            "errors[].field",
            "errors[].line",
            "errors[].object",
            "errors[].object_line",
            "warnings[].field",
            "warnings[].line",
            "warnings[].object",
            "warnings[].object_line",
        ],
    ),
    (
        "connections",
        &[
            "connections[].source",
            "connections[].source_identity",
            "connections[].destination",
            "connections[].destination_identity",
            "connections[].service",
        ],
    ),
    (
        "explain --from POD --to HOST:PORT",
        &[
            "capture.fix",
            "destination.service",
            "endpoints[].conclusion",
            "endpoints[].identity",
            "endpoints[].left_out",
            "endpoints[].node",
            "endpoints[].path",
            "endpoints[].pod",
            "endpoints[].policy",
            "endpoints[].policy.decision.policy",
            "endpoints[].policy.decision.rule",
            "endpoints[].policy.dry_run",
            "endpoints[].policy.dry_run.policy",
            "endpoints[].policy.dry_run.rule",
            "endpoints[].policy.mtls",
            "endpoints[].policy.mtls.identity",
            "endpoints[].policy.mtls.policy",
            "endpoints[].policy.policies[].matched",
            "endpoints[].policy.policies[].rules[].fields[].actual",
            "endpoints[].policy.policies[].rules[].note",
            "source.identity",
            "source.node",
            "source.pod",
        ],
    ),
    (
        "explain --from POD",
        &["capture.fix", "source.identity", "source.node", "source.pod"],
    ),
    ("settings", &["[].environment", "[].value"]),
    ("doctor", &["[].fix"]),
];

fn validation() -> Validation {
    let error = ConfigError {
        file: "a.yaml".into(),
        line: Some(5),
        object_line: Some(1),
        object: Some("Pod default/a".into()),
        field: Some("spec".into()),
        problem: "is required".into(),
    };
    Validation {
        valid: false,
        files: 1,
        objects: [("*".to_owned(), 1)].into(),
        errors: vec![error.clone()],
        warnings: vec![error],
    }
}

fn top() -> Frame {
    Frame {
        pairs: vec![Rate::default()],
        ..Frame::default()
    }
}

fn setting() -> SettingRow {
    SettingRow {
        name: "node".into(),
        value: Some("a".into()),
        source: "flag",
        environment: Some("TRAMLINE_NODE".into()),
    }
}

fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        commit: "abc".into(),
        pid: 7,
        uptime_seconds: 300,
        ready: true,
        checks: vec![CheckResult {
            name: "capture".into(),
            ok: true,
            detail: String::new(),
        }],
        connections: 2,
        log_level: "info".into(),
        agent: AgentStatus {
            node: "a".into(),
            config_problems: vec!["a.yaml:1: Pod default/a: spec: is required".into()],
            details: [("*".to_owned(), "1".to_owned())].into(),
            ..AgentStatus::default()
        },
    }
}

pub(super) fn workload() -> WorkloadRow {
    WorkloadRow {
        uid: "u".into(),
        namespace: "default".into(),
        name: "sleep".into(),
        node: "a".into(),
        identity: "spiffe://cluster.local/ns/default/sa/sleep".into(),
        addresses: vec!["10.0.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        protocol: "hbone".into(),
        ready: true,
        state: "enrolled".into(),
    }
}

pub(super) fn service() -> ServiceRow {
    ServiceRow {
        namespace: "default".into(),
        name: "web".into(),
        hostname: "web.default.svc.cluster.local".into(),
        addresses: vec!["10.96.0.9".parse().unwrap(), "fd96::9".parse().unwrap()],
        ports: vec![ServicePortRow {
            name: "http".into(),
            port: 80,
            app_protocol: Some("http".into()),
        }],
        endpoints_ready: 1,
        endpoints_total: 2,
        flags: vec!["internalTrafficPolicy=Local".into()],
        endpoints: vec![EndpointRow {
            address: "10.0.1.3".parse().unwrap(),
            workload: Some("default/web-1".into()),
            node: Some("a".into()),
            zone: Some("z1".into()),
            ready: true,
            state: "ready".into(),
            connections: 4,
            ports: vec![EndpointPortRow {
                port: 80,
                target_port: 8080,
            }],
        }],
    }
}

pub(super) fn policies() -> Vec<PolicyOverview> {
    let rejected = PolicyOverview {
        kind: "AuthorizationPolicy".into(),
        namespace: "default".into(),
        name: "no-sleep".into(),
        origin: Some("policy.yaml:1".into()),
        scope: "workloads".into(),
        selects: Some("app=web".into()),
        action: "DENY".into(),
        dry_run: false,
        rules: vec!["from principals one of cluster.local/ns/default/sa/sleep".into()],
        workloads: vec!["default/web-1".into()],
        workloads_total: 3,
        accepted: false,
        conditions: vec![ConditionOverview {
            reason: "rule_widened".into(),
            field: "spec.rules[0]".into(),
            message: "HTTP is not looked at (to[0].operation.paths)".into(),
        }],
    };
    let strict = PolicyOverview {
        kind: "PeerAuthentication".into(),
        name: "strict".into(),
        scope: "namespace".into(),
        selects: None,
        action: "STRICT".into(),
        accepted: true,
        conditions: Vec::new(),
        ..rejected.clone()
    };
    vec![rejected, strict]
}

pub(super) fn certificates() -> CertificateReport {
    CertificateReport {
        certificates: vec![CertificateRow {
            identity: "spiffe://cluster.local/ns/default/sa/sleep".into(),
            serial: "0a1b".into(),
            not_before: "2026-11-24T03:59:00Z".into(),
            not_after: "2026-11-25T04:00:00Z".into(),
            expires_in_seconds: 7_300,
            renew_at: "2026-11-24T16:00:00Z".into(),
            issuer: "O=cluster.local".into(),
            issuer_fingerprint: "ab".repeat(32),
            root_fingerprint: "cd".repeat(32),
        }],
        roots: vec![RootRow {
            subject: "O=cluster.local".into(),
            fingerprint: "cd".repeat(32),
            not_before: "2026-11-24T03:59:00Z".into(),
            not_after: "2036-11-24T04:00:00Z".into(),
            expires_in_seconds: 300_000_000,
        }],
        revocation_lists: vec![RevocationListRow {
            issuer: "O=cluster.local".into(),
            this_update: "2026-11-24T03:59:00Z".into(),
            next_update: "2026-11-25T03:59:00Z".into(),
            revoked: 2,
            verified: true,
        }],
    }
}

pub(super) fn connections() -> ConnectionList {
    ConnectionList {
        total: 1,
        connections: vec![ConnectionRow {
            id: 3,
            direction: "outbound".into(),
            path: "hbone".into(),
            security: "mutual_tls".into(),
            source_address: "10.0.1.2:40000".parse().unwrap(),
            source: Some("default/sleep".into()),
            source_identity: Some("spiffe://cluster.local/ns/default/sa/sleep".into()),
            original_destination: "10.96.0.9:80".parse().unwrap(),
            destination_address: "10.0.2.3:15008".parse().unwrap(),
            destination: Some("default/web-1".into()),
            destination_identity: Some("spiffe://cluster.local/ns/default/sa/web".into()),
            service: Some("web.default.svc.cluster.local".into()),
            to_destination: 2048,
            to_source: 1,
            age_ms: 5_900,
            established: true,
        }],
    }
}

/// `default/sleep` is kept from Service `web` by a rule.
pub(super) fn explanation() -> ExplainReport {
    let text = "denied by AuthorizationPolicy default/no-sleep rule 0";
    let conclusion = Conclusion {
        verdict: "deny".into(),
        reason: "policy_denied".into(),
        text: text.into(),
        changes: vec![
            "change rule 0 of DENY policy default/no-sleep so that it does not match this source".into(),
        ],
    };
    let step = |policy: &str, action: &str, scope, decides, asked, fields| PolicyStep {
        policy: policy.into(),
        action: action.into(),
        enforced: true,
        dry_run: false,
        scope,
        asked,
        decides,
        matched: Some(0),
        rules: vec![RuleStep {
            rule: 0,
            matched: true,
            fields,
            note: (action == "ALLOW")
                .then(|| "HTTP is not looked at (to[0].operation.paths), so it lets nobody in".into()),
        }],
    };
    let field = |clause: &str, field: &str, wanted: &str, actual: Option<&str>| FieldStep {
        clause: clause.into(),
        entry: 0,
        field: field.into(),
        matched: true,
        wanted: wanted.into(),
        actual: actual.map(str::to_owned),
    };
    let principal = "cluster.local/ns/default/sa/sleep";
    let policy = PolicyExplanation {
        mtls: Some(MtlsStep {
            port: 8080,
            strict: true,
            policy: Some("default/strict".into()),
            identity: Some(format!("spiffe://{principal}")),
            passed: true,
        }),
        policies: vec![
            step(
                "default/no-sleep",
                "DENY",
                Scope::Selector("app=web".into()),
                true,
                true,
                vec![
                    field("from", "principals", principal, Some(principal)),
                    field("to", "ports", "8080", Some("8080")),
                ],
            ),
            step(
                "istio-system/all",
                "ALLOW",
                Scope::Mesh,
                false,
                false,
                vec![field("from", "*", "anything", Some(""))],
            ),
        ],
        decision: Decision {
            allowed: false,
            reason: "policy_denied".into(),
            policy: Some("default/no-sleep".into()),
            rule: Some(0),
            text: text.into(),
        },
        dry_run: Some(Decision {
            allowed: false,
            reason: "policy_denied".into(),
            policy: Some("default/try".into()),
            rule: Some(1),
            text: "denied by AuthorizationPolicy default/try rule 1".into(),
        }),
    };
    let endpoint = |address: &str, pod: &str| ExplainEndpoint {
        address: address.parse().unwrap(),
        pod: Some(pod.into()),
        node: Some("b".into()),
        identity: Some("spiffe://cluster.local/ns/default/sa/web".into()),
        left_out: None,
        connections: 0,
        avoided: false,
        path: Some("hbone".into()),
        policy: Some(policy.clone()),
        conclusion: Some(conclusion.clone()),
    };
    ExplainReport {
        agent_node: "a".into(),
        generation: 7,
        explanation: Explanation {
            source: source(),
            capture: CaptureAnswer {
                captured: true,
                code: "captured".into(),
                text: "default/sleep is enrolled".into(),
                fix: Some(String::new()),
            },
            destination: ExplainDestination {
                addresses: vec!["10.96.0.9:80".parse().unwrap()],
                service: Some("web.default.svc.cluster.local".into()),
            },
            endpoints: vec![
                endpoint("10.0.2.3:8080", "default/web-1"),
                ExplainEndpoint {
                    left_out: Some("not ready".into()),
                    ..endpoint("10.0.2.4:8080", "default/web-2")
                },
            ],
            endpoints_omitted: 0,
            conclusion: conclusion.clone(),
        },
    }
}

fn source() -> ExplainSource {
    ExplainSource {
        pod: Some("default/sleep".into()),
        addresses: vec!["10.0.1.2".parse().unwrap()],
        node: Some("a".into()),
        identity: Some("spiffe://cluster.local/ns/default/sa/sleep".into()),
    }
}

pub(super) fn capture() -> CaptureReport {
    CaptureReport {
        agent_node: "a".into(),
        generation: 7,
        source: source(),
        capture: CaptureAnswer {
            captured: false,
            code: "opted_out".into(),
            text: "the label istio.io/dataplane-mode: none on default/sleep keeps it out".into(),
            fix: Some("remove that label".into()),
        },
        exclusions: Exclusions {
            outbound_ports: vec![9100],
            outbound_cidrs: vec!["10.1.0.0/16".into()],
            inbound_ports: vec![9000],
        },
    }
}

type Shape = BTreeMap<String, BTreeSet<&'static str>>;

fn shape(value: &Value, path: &str, into: &mut Shape) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items
                .iter()
                .for_each(|item| shape(item, &format!("{path}[]"), into));
            "list"
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                shape(field, &format!("{path}{dot}{name}"), into);
            }
            "object"
        }
    };
    into.entry(path.to_owned()).or_default().insert(kind);
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (command, sample) in samples() {
        let mut found = Shape::new();
        shape(&sample, "", &mut found);
        let nullable = NULLABLE
            .iter()
            .find(|(name, _)| *name == command)
            .map_or(&[][..], |(_, fields)| *fields);
        for field in nullable {
            found
                .get_mut(*field)
                .unwrap_or_else(|| panic!("{command}: no field {field}"))
                .insert("null");
        }
        writeln!(page, "\n## tramline {command}\n\n| field | type |\n|---|---|").unwrap();
        for (path, kinds) in &found {
            assert!(
                !kinds.contains("null") || kinds.len() > 1,
                "{command}: {path} is null in the sample"
            );
            let path = if path.is_empty() { "(the whole)" } else { path };
            let kinds: Vec<_> = kinds.iter().rev().copied().collect();
            writeln!(page, "| `{path}` | {} |", kinds.join(" or ")).unwrap();
        }
    }
    page
}

#[test]
fn docs_api_md_is_current() {
    assert_document("API.md", &page());
}

/// An agent answers `null` for what it does not know; this program has to read that.
#[test]
fn what_may_be_null_is_read_as_such() {
    fn set_null(value: &mut Value, path: &str) {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        let (name, list) = first
            .strip_suffix("[]")
            .map_or((first, false), |name| (name, true));
        let field = if name.is_empty() { value } else { &mut value[name] };
        match (list, rest) {
            (false, "") => *field = Value::Null,
            (false, _) => set_null(field, rest),
            (true, _) => set_null(&mut field[0], rest),
        }
    }
    for (command, fields) in NULLABLE {
        for field in *fields {
            let (_, mut sample) = samples().into_iter().find(|(name, _)| name == command).unwrap();
            set_null(&mut sample, field);
            let read = match *command {
                "services" => serde_json::from_value::<Vec<ServiceRow>>(sample).map(drop),
                "policies" => serde_json::from_value::<Vec<PolicyOverview>>(sample).map(drop),
                "connections" => serde_json::from_value::<ConnectionList>(sample).map(drop),
                "explain --from POD --to HOST:PORT" => {
                    serde_json::from_value::<ExplainReport>(sample).map(drop)
                }
                "explain --from POD" => serde_json::from_value::<CaptureReport>(sample).map(drop),
                // Not read by this program: it makes the answer itself.
                "config validate" | "doctor" | "settings" => Ok(()),
                other => panic!("{other}"),
            };
            assert!(read.is_ok(), "{command}: {field}: {read:?}");
        }
    }
}

/// An agent of a later release answers with fields that this program does not know.
#[test]
fn fields_of_a_later_release_are_no_error() {
    let mut status = value(&status());
    status["a_field_of_tomorrow"] = json!({ "x": 1 });
    assert!(serde_json::from_value::<Status>(status).is_ok());
    let mut row = value(&workload());
    row["a_field_of_tomorrow"] = json!([1]);
    assert!(serde_json::from_value::<WorkloadRow>(row).is_ok());
}
